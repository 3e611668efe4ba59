package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cni"
)

const installHelp = `Copies the CNI plugin, middleway-cni, from beside this program (or, where it is not there, this program itself, which is the
plugin under that name) into a directory of the container runtime's plugins.

The former plugin is there until the new one is whole and on the disk; an equal one is left as it is. Where the directory has no plugin
called loopback, which containerd wants, a link of that name to middleway-cni is made: it is that plugin too.

The network configuration comes from the daemon, once it serves: cni.conflist in "middleway node --help".
"middleway node --cleanup --bin-dir DIR" removes the plugin again.`

func installCommand() *cobra.Command {
	var dir pathFlag
	cmd := &cobra.Command{
		Use:   "install --bin-dir DIR",
		Short: "Put the CNI plugin where the container runtime looks for it",
		Long:  installHelp,
		Example: `  middleway install --bin-dir /opt/cni/bin
  middleway install --bin-dir /host/opt/cni/bin      # the init container of a pod, with the host's /opt/cni/bin mounted there`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errors.New("install: --bin-dir DIR is needed: the container runtime's directory of CNI plugins, mostly /opt/cni/bin")
			}
			from, err := pluginFile()
			if err != nil {
				return err
			}
			in, err := cni.Install(from, string(dir))
			if err != nil {
				return err
			}
			did := "is up to date"
			if in.Changed {
				did = "is installed"
			}
			if in.Loopback {
				did += ", loopback with it"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", in.Plugin, did)
			return nil
		},
	}
	cmd.Flags().Var(&dir, "bin-dir", "the container runtime's directory of CNI plugins (required)")
	return cmd
}

// pluginFile returns the path of the plugin beside this program, else of this program.
func pluginFile() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the plugin: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), cni.PluginName)
	if _, err := os.Stat(beside); errors.Is(err, fs.ErrNotExist) {
		return self, nil
	}
	return beside, nil
}
