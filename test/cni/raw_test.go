package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	plugin "github.com/middleway-net/middleway/cni"
)

// execute executes the plugin without libcni, which would refuse what a test wants the plugin to refuse.
func execute(t testing.TB, r *runtime, env []string, stdin string) (stdout string, err error) {
	t.Helper()
	path, err := r.exec.FindInPath(plugin.PluginName, r.cni.Path)
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = append(append(os.Environ(), "CNI_PATH="+filepath.Dir(path)), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader([]byte(stdin)), &out, &stderr
	err = cmd.Run()
	if stderr.Len() > 0 {
		t.Logf("%s", stderr.Bytes())
	}
	return out.String(), err
}

// rawCommand executes a command and returns the error that the plugin printed.
func rawCommand(t testing.TB, r *runtime, command string, c *libcni.RuntimeConf, version string, extra ...string) error {
	t.Helper()
	conf := fmt.Sprintf(`{"cniVersion":%q,"name":"middleway","type":"middleway-cni","socket":%q}`, version, socketOf(r.node))
	env := append([]string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + c.ContainerID, "CNI_NETNS=" + c.NetNS, "CNI_IFNAME=" + c.IfName,
	}, extra...)
	return said(t, r, env, conf, version)
}

// said executes the plugin and returns the error that it printed, which must name the version; nil if it succeeded.
func said(t testing.TB, r *runtime, env []string, conf, version string) error {
	t.Helper()
	out, err := execute(t, r, env, conf)
	if err == nil {
		return nil
	}
	var e struct {
		Version string `json:"cniVersion"`
		types.Error
	}
	if json.Unmarshal([]byte(out), &e) != nil || e.Version != version {
		t.Errorf("on standard output: %s; want an error of version %s", out, version)
	}
	return &e.Error
}
