package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// rootless is a node as a rootless Kubernetes has it: `middleway sockets` runs in a machine's network, the daemon in a namespace
// from which nothing else leads out.
type rootless struct {
	t         *testing.T
	machine   *lab.Namespace
	node, pod *lab.Namespace
	path      string // of the unix socket between them
	config    node.Config
	parent    *lab.Process
	daemon    *lab.Process
}

// newRootless makes a node of the plan on a machine that has its address.
func newRootless(t *testing.T, number int, machine *lab.Namespace) *rootless {
	dir := shortDir(t)
	r := &rootless{
		t: t, machine: machine, path: filepath.Join(dir, "sockets"),
		node: newNamespace(t, fmt.Sprintf("node-%d", number)), pod: newNamespace(t, fmt.Sprintf("pod-%d", number)),
	}
	other := 3 - number
	r.config = node.Config{
		Name: fmt.Sprintf("node-%d", number), RunDir: filepath.Join(dir, "run"), Sockets: r.path,
		PodCIDRs: []netip.Prefix{lab.PodCIDR4(number), lab.PodCIDR6(number)},
		Peers:    []node.Peer{{Address: lab.NodeAddr4(other).Addr(), PodCIDRs: []netip.Prefix{lab.PodCIDR4(other), lab.PodCIDR6(other)}}},
		Pods: []node.Pod{{
			Name: "default/pod", Netns: r.pod.Path(), Addresses: []netip.Addr{host(lab.PodCIDR4(number), 2), host(lab.PodCIDR6(number), 2)},
		}},
	}
	own := lab.NodeAddr4(number).Addr()
	r.must(r.node.AddAddr("lo", netip.PrefixFrom(own, own.BitLen())))
	return r
}

func (r *rootless) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rootless) start(p *lab.Process) *lab.Process {
	r.t.Helper()
	r.must(p.Start())
	r.t.Cleanup(func() { p.Kill() })
	return p
}

// startParent starts `middleway sockets` and waits until it serves.
func (r *rootless) startParent() {
	r.t.Helper()
	r.parent = r.start(lab.Exec(r.machine, middleway(r.t), "sockets", r.path))
	eventually(r.t, "sockets are served", func() bool { return strings.Contains(r.parent.Tail(), "sockets are served") })
}

func (r *rootless) startDaemon() {
	r.t.Helper()
	b, err := json.Marshal(r.config)
	r.must(err)
	file := filepath.Join(filepath.Dir(r.path), "node.yaml")
	r.must(os.WriteFile(file, b, 0o644))
	r.daemon = r.start(lab.Exec(r.node, middleway(r.t), "node", "--config", file))
}

func (r *rootless) waitReady() node.Status {
	r.t.Helper()
	var st node.Status
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if st, err = node.ReadStatus(r.t.Context(), r.config.RunDir); err == nil && st.PID == r.daemon.PID() {
			return st
		}
		if time.Now().After(end) {
			r.t.Fatalf("the daemon does not answer: %v\n%s", err, r.daemon.Tail())
		}
	}
}

// TestRootless: two rootless nodes on two machines find their address there and reach each other. The end of a parent takes
// nothing from a daemon that runs, and keeps the next from starting until there is a parent again.
func TestRootless(t *testing.T) {
	machines := []*lab.Namespace{newNamespace(t, "machine-1"), newNamespace(t, "machine-2")}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{}, machines...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	var nodes []*rootless
	for i, m := range machines {
		r := newRootless(t, i+1, m)
		r.startParent()
		r.startDaemon()
		nodes = append(nodes, r)
	}
	for i, r := range nodes {
		st := r.waitReady()
		if st.Address != lab.NodeAddr4(i+1).Addr() || st.Underlay.Interface != "eth0" || st.Underlay.MTU != 1500 || st.MTU != 1450 || st.Underlay.Sockets != r.path {
			t.Errorf("%+v, MTU of pods %d", st.Underlay, st.MTU)
		}
	}
	one, two := nodes[0], nodes[1]
	ping := func() {
		t.Helper()
		for _, dst := range two.config.Pods[0].Addresses {
			mustPing(t, one.pod, dst, 1400)
		}
		mustPing(t, one.pod, lab.NodeAddr4(2).Addr(), 56)
		mustPing(t, one.node, lab.NodeAddr4(2).Addr(), 56)
	}
	ping()

	// A change outside is seen inside.
	nl, err := machines[0].Netlink()
	one.must(err)
	eth0, err := nl.LinkByName("eth0")
	one.must(err)
	one.must(nl.LinkSetMTU(eth0, 1400))
	eventually(t, "the change of MTU is told", func() bool { return strings.Contains(one.waitReady().Underlay.Changed, "1400 bytes") })
	one.must(nl.LinkSetMTU(eth0, 1500))
	eventually(t, "the change is taken back", func() bool { return one.waitReady().Underlay.Changed == "" })

	one.must(one.parent.Kill())
	eventually(t, "the parent's end is told", func() bool { return strings.Contains(one.daemon.Tail(), "the underlay is not watched") })
	ping()
	one.startParent()
	eventually(t, "the next parent is found", func() bool { return strings.Contains(one.daemon.Tail(), "watched again") })
	ping()
	if n := strings.Count(one.daemon.Tail(), "not watched until"); n != 1 {
		t.Errorf("it warned %d times:\n%s", n, one.daemon.Tail())
	}

	one.must(one.parent.Kill())
	one.must(one.daemon.Kill())
	one.startDaemon()
	if err := one.daemon.Wait(); err == nil || !strings.Contains(one.daemon.Tail(), "nobody serves "+one.path) || !strings.Contains(one.daemon.Tail(), "start `middleway sockets") {
		t.Errorf("without a parent: %v, %s", err, one.daemon.Tail())
	}
	one.startParent()
	one.startDaemon()
	one.waitReady()
	ping()
	if err := one.parent.Stop(10 * time.Second); err != nil {
		t.Errorf("end by SIGTERM: %v", err)
	}
	if _, err := os.Stat(one.path); err == nil {
		t.Error("the parent left its socket behind")
	}
}

// Mistakes in starting a parent are one sentence with the remedy.
func TestSocketsErrors(t *testing.T) {
	r := newRootless(t, 1, newNamespace(t, "machine"))
	r.startParent()
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"no path", nil, []string{"one argument, the path", "--help"}},
		{"two paths", []string{"a", "b"}, []string{"one argument, the path"}},
		{"served", []string{r.path}, []string{"another process does so", "choose another path"}},
		{"no directory", []string{"/no/directory/s"}, []string{"no such file", "a directory that exists"}},
		{"a file", []string{"/proc/version"}, []string{"a file is there"}},
		{"long", []string{"/tmp/" + strings.Repeat("x", 107)}, []string{"longer than 107 bytes"}},
		{"log level", []string{"x", "--log-level", "loud"}, []string{"--log-level"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := lab.Exec(r.machine, append([]string{middleway(t), "sockets"}, tt.args...)...)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			err := p.Wait()
			text := p.Tail()
			if err == nil || strings.Count(text, "\n") != 1 {
				t.Errorf("got %v and %q, want exit code 1 and one line", err, text)
			}
			for _, w := range tt.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q is not in: %s", w, text)
				}
			}
		})
	}
}
