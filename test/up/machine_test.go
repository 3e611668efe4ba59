package up

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/node"
)

// On a kernel without IPv6 the cluster is one of IPv4, whatever joins its nodes, and each node says so.
func TestNoIPv6(t *testing.T) {
	for _, underlay := range []string{"kernel", "userspace", "machine"} {
		t.Run(underlay, func(t *testing.T) {
			p := newPlayground(t)
			up := exec.Command("/proc/self/exe", program, "up", "--dir", p.dir, "-d", "--underlay", underlay)
			up.Env = append(os.Environ(), withoutVar+"="+withoutIPv6)
			if out, err := up.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			st := p.status()
			for _, n := range st.Nodes {
				if !n.Ready || len(n.Addresses) != 1 || !n.Addresses[0].Is4() || len(n.PodCIDRs) != 1 || !n.PodCIDRs[0].Addr().Is4() {
					t.Errorf("node: got %+v", n)
				}
				var own node.Status
				out, err := exec.Command(program, "status", "--run-dir", n.RunDir, "-o", "json").Output()
				if err == nil {
					err = json.Unmarshal(out, &own)
				}
				if want := "the kernel has no IPv6: pods get IPv4 only"; err != nil || !slices.Contains(own.Notes, want) {
					t.Errorf("notes of %s: %q, %v, want %q", n.Name, own.Notes, err, want)
				}
			}
			for _, pod := range st.Pods {
				if pod.Phase != "Running" || len(pod.IPs) != 1 || !pod.IPs[0].Is4() {
					t.Errorf("pod: got %+v", pod)
				}
			}
			server := netip.AddrPortFrom(st.Pods[2].IPs[0], 8080).String()
			p.eventually("an answer of "+server, func() bool {
				_, code := p.middleway("exec", "pod-1-1", "--", "middleway", "tool", "get", "--timeout", "2s", server)
				return code == 0
			})
		})
	}
}

// An ordinary user without a session, as after su, has no XDG_RUNTIME_DIR: the cluster is among the temporary files, where all commands
// find it, and leaves nothing there. What another user could have put there is refused.
func TestNoRuntimeDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root has /run/middleway")
	}
	tmp, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	middleway := func(args ...string) (string, error) {
		cmd := exec.Command(program, args...)
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, "XDG_RUNTIME_DIR=") && !strings.HasPrefix(v, "TMPDIR=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() { _, _ = middleway("down") })
	dir := filepath.Join(tmp, fmt.Sprintf("middleway-%d", os.Getuid()))
	if out, err := middleway("up", "-d", "--nodes", "1"); err != nil || !strings.Contains(out, filepath.Join(dir, "up")) {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", st, err)
	}
	for _, args := range [][]string{{"status"}, {"exec", "pod-1-1", "--", "true"}, {"down"}} {
		if out, err := middleway(args...); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"up"}, {"up", "-d"}, {"status"}, {"exec", "web", "--", "true"}, {"down"}} {
		out, err := middleway(args...)
		if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "set XDG_RUNTIME_DIR to a directory of your own") {
			t.Errorf("%v: got %v\n%s", args, err, out)
		}
	}
}
