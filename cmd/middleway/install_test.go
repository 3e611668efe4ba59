package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/cni"
)

// What is beside this program is installed, else this program, and the second time nothing is to be done.
func TestInstallCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, want := range []string{"is installed, loopback with it", "is up to date, loopback with it"} {
		cmd, said := command(), bytes.Buffer{}
		cmd.SetArgs([]string{"install", "--bin-dir", dir})
		cmd.SetOut(&said)
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		if got := said.String(); got != filepath.Join(dir, cni.PluginName)+" "+want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	a, errA := os.Stat(self)
	b, errB := os.Stat(filepath.Join(dir, cni.PluginName))
	if errA != nil || errB != nil || a.Size() != b.Size() {
		t.Errorf("this program: %v, %v; what was installed: %v, %v", a, errA, b, errB)
	}
	cmd := command()
	cmd.SetArgs([]string{"install"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "--bin-dir DIR is needed") {
		t.Errorf("without a directory: %v", err)
	}
}
