package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// No address is left for a pod: the plugin's exit code and its one sentence say so.
func TestPoolExhausted(t *testing.T) {
	m := newMachine(t)
	m.config.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/30")}
	m.config.Pods = m.config.Pods[:1] // has 10.244.1.2
	m.config.Pods[0].Addresses = m.config.Pods[0].Addresses[:1]
	d := m.daemon()
	m.must(d.Start())
	defer func() {
		if err := d.Stop(10 * time.Second); err != nil {
			t.Errorf("%v: %s", err, d.Tail())
		}
	}()
	socket := filepath.Join(m.config.RunDir, "cni.sock")
	eventually(t, "the daemon has made its socket", func() bool { _, err := os.Stat(socket); return err == nil })
	plugin := filepath.Join(m.dir, "middleway-cni")
	m.must(os.Symlink(middleway(t), plugin))
	cmd := exec.Command(plugin)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"middleway","type":"middleway-cni","socket":%q}`, socket))
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=pod", "CNI_IFNAME=eth0", "CNI_PATH="+m.dir, "CNI_NETNS="+m.pods[1].Path())
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	for _, w := range []string{`"code": 100`, `"no free pod address"`, "10.244.1.0/30", "podCIDR"} {
		if !strings.Contains(string(out), w) {
			t.Errorf("%q is not in: %s", w, out)
		}
	}
}
