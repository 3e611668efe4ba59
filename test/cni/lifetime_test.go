package cni

import (
	"context"
	"errors"
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

// often makes the daemon look for what has gone all the time.
func often(c *node.Config) { c.CNI.Interval = node.Duration(50 * time.Millisecond) }

// A DEL without a daemon leaves nothing: not the device, and after the next start not the lease.
func TestDelWithoutDaemon(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	a, b, c := r.sandbox("a"), r.sandbox("b"), r.sandbox("c")
	for _, s := range []*sandbox{a, b, c} {
		r.mustAdd(s)
	}
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	r.mustDel(a)
	r.mustDel(a)
	if got := devices(t, a.Namespace); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	if err := b.Close(); err != nil { // its namespace is gone before its DEL
		t.Fatal(err)
	}
	r.mustDel(b)
	start(t, n)
	st := mustStatus(t, n)
	if len(st.Attachments) != 1 || st.Attachments[0].ContainerID != "c" || st.Stack.Attachments != 1 {
		t.Errorf("attachments %+v, %d in the stack; want c's", st.Attachments, st.Stack.Attachments)
	}
	if stones, _ := filepath.Glob(filepath.Join(n.Config.RunDir, "tombstones", "*")); len(stones) > 0 {
		t.Errorf("left: %v", stones)
	}
	r.mustAdd(a)
	mustPing(t, a.Namespace, c.addrs[0])
	r.mustDel(a)
	r.mustDel(c)
	if got := left(t, n); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// A DEL passes over what is wrong with the configuration and what it does not need of it.
func TestDelNeedsLittle(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	s := r.sandbox("pod")
	env := []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=pod", "CNI_IFNAME=eth0", "CNI_ARGS=no pairs"}
	conf := `{"cniVersion":"1.1.0","name":"middleway","type":"middleway-cni","socket":%q,%s}`
	for _, field := range []string{
		`"ipam":{"type":"host-local"}`, `"ipam":7`, `"prevResult":{"cniVersion":"1.1.0","ips":"x"}`, `"prevResult":[]`,
		`"prevResult":{"cniVersion":"1.1.0","interfaces":[null]}`, `"runtimeConfig":{"ips":3}`,
	} {
		r.mustAdd(s)
		if err := said(t, r, append(env, "CNI_NETNS="+s.Path()), fmt.Sprintf(conf, socketOf(n), field), "1.1.0"); err != nil {
			t.Errorf("%s: %v", field, err)
		}
		if got := append(left(t, n), devices(t, s.Namespace)...); len(got) > 0 {
			t.Fatalf("%s: left: %v", field, got)
		}
	}
	for field, code := range map[string]uint{`"socket":7`: 6, `"socket":"cni.sock"`: 7} {
		wantCode(t, said(t, r, env, fmt.Sprintf(conf, socketOf(n), field), "1.1.0"), code, "socket")
	}
}

// A tombstone that comes while the daemon runs is obeyed too: at the next look, or by an ADD that comes first.
func TestTombstoneWhileRunning(t *testing.T) {
	for _, add := range []bool{false, true} {
		n := newNode(t, func(c *node.Config) {
			if !add {
				often(c)
			}
		})
		r := newRuntime(t, n, "1.1.0", nil)
		s := r.sandbox("pod")
		r.mustAdd(s)
		first := s.addrs[0]
		away := socketOf(n) + ".away" // the daemon does not answer
		if err := os.Rename(socketOf(n), away); err != nil {
			t.Fatal(err)
		}
		r.mustDel(s)
		if err := os.Rename(away, socketOf(n)); err != nil {
			t.Fatal(err)
		}
		if add {
			r.mustAdd(s)
			if s.addrs[0] == first {
				t.Errorf("the pod got %v again at once", first)
			}
			mustPing(t, s.Namespace, netip.MustParseAddr("10.244.1.1"))
			r.mustDel(s)
		}
		eventually(t, "nothing is left", func() bool { return len(left(t, n)) == 0 })
	}
}

// A pod that ends without a DEL is released, although the daemon's open queues pin its namespace.
func TestNamespaceGone(t *testing.T) {
	n := newNode(t, often)
	r := newRuntime(t, n, "1.1.0", nil)
	keeper, a, b, c := r.sandbox("keeper"), r.sandbox("a"), r.sandbox("b"), r.sandbox("c")
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(b.Path(), path); err != nil {
		t.Fatal(err)
	}
	b.conf.NetNS = path
	for _, s := range []*sandbox{keeper, a, b, c} {
		r.mustAdd(s)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	remains := func(ids ...string) func() bool {
		return func() bool {
			st := mustStatus(t, n)
			var got []string
			for _, a := range st.Attachments {
				got = append(got, a.ContainerID)
			}
			return strings.Join(got, " ") == strings.Join(ids, " ") && st.Stack.Attachments == len(ids)
		}
	}
	eventually(t, "a is released", remains("b", "c", "keeper"))

	// The path names another namespace now, with an interface of the same name.
	other := r.sandbox("other")
	r.mustAdd(other)
	if err := errors.Join(os.Remove(path), os.Symlink(other.Path(), path)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is released", remains("c", "keeper", "other"))
	mustPing(t, other.Namespace, keeper.addrs[0])

	// Gone while no daemon runs.
	if err := n.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, n)
	eventually(t, "c is released", remains("keeper", "other"))
	r.mustDel(keeper)
	r.mustDel(other)
	eventually(t, "nothing is left", func() bool { return len(left(t, n)) == 0 })
}

// Somebody removes the interface of a pod that lives on: status and CHECK say so, nobody else gets its addresses, and DEL ends it as
// ever.
func TestInterfaceRemoved(t *testing.T) {
	for name, change := range map[string]func(*node.Config){
		"multi-queue": often, "portable": func(c *node.Config) { often(c); c.PortableDevices = true },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, change)
			r := newRuntime(t, n, "1.1.0", nil)
			a, b, c := r.sandbox("a"), r.sandbox("b"), r.sandbox("c")
			r.mustAdd(a)
			r.mustAdd(b)
			nl, err := a.Netlink()
			if err != nil {
				t.Fatal(err)
			}
			eth0, err := nl.LinkByName("eth0")
			if err == nil {
				err = nl.LinkDel(eth0)
			}
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the status says that a is lost", func() bool {
				st := mustStatus(t, n)
				return len(st.Attachments) == 2 && st.Attachments[0].State == "lost" && st.Attachments[1].State == "attached" && st.Stack.Attachments == 1
			})
			for _, addr := range a.addrs {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				_, err := b.Ping(ctx, addr, 56)
				cancel()
				if err == nil || !strings.Contains(err.Error(), "unreachable") {
					t.Errorf("b pings %v: %v, want that it is unreachable", addr, err)
				}
			}
			wantCode(t, r.check(a), 104)
			r.mustAdd(c)
			mustPing(t, b.Namespace, c.addrs[0])
			if c.addrs[0] == a.addrs[0] {
				t.Errorf("c got %v, which is leased to a", c.addrs[0])
			}
			if st := mustStatus(t, n).Attachments; len(st) != 3 || st[0].ContainerID != "a" || st[0].State != "lost" {
				t.Errorf("after some looks: %+v", st)
			}
			r.mustDel(a)
			r.mustAdd(a)
			mustPing(t, b.Namespace, a.addrs[0])
			for _, s := range []*sandbox{a, b, c} {
				r.mustDel(s)
			}
			if got := left(t, n); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A restarted daemon takes the pods up before it says that it is ready, with either kind of device, and with a
// configuration that has changed.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after func(*node.Config)
	}{
		{"same configuration", func(*node.Config) {}, func(*node.Config) {}},
		{"portable devices", func(c *node.Config) { c.PortableDevices = true }, func(*node.Config) {}},
		{"portable devices, then others", func(c *node.Config) { c.PortableDevices = true }, func(c *node.Config) { c.PortableDevices = false }},
		{"portable devices from now on", func(*node.Config) {}, func(c *node.Config) { c.PortableDevices = true }},
		{"other number of workers", func(c *node.Config) { c.Workers = 3 }, func(c *node.Config) { c.Workers = 2 }},
		{"other MTU", func(*node.Config) {}, func(c *node.Config) { c.MTU = 1400 }},
		{"other podCIDRs", func(*node.Config) {}, func(c *node.Config) { c.PodCIDRs = []netip.Prefix{lab.PodCIDR4(7), lab.PodCIDR6(7)} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, tt.before)
			r := newRuntime(t, n, "0.4.0", nil)
			a, b, c := r.sandbox("a"), r.sandbox("b"), r.sandbox("c")
			r.mustAdd(a)
			r.mustAdd(b)
			mustPing(t, a.Namespace, b.addrs[0])
			if err := n.Daemon().Kill(); err != nil {
				t.Fatal(err)
			}
			tt.after(&n.Config)
			start(t, n)
			if st := mustStatus(t, n); st.Stack.Attachments != 2 || st.Attachments[0].State != "attached" {
				t.Errorf("when it is ready, %d pods are attached: %+v", st.Stack.Attachments, st.Attachments)
			}
			r.mustAdd(c)
			for _, to := range [][2]*sandbox{{a, b}, {b, c}, {c, a}} {
				mustReach(t, to[0], to[1].addrs[0])
				mustReach(t, to[0], to[1].addrs[1])
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			for _, s := range []*sandbox{a, b, c} {
				r.mustDel(s)
				if got := devices(t, s.Namespace); len(got) > 0 {
					t.Errorf("left in %s: %v", s.Name(), got)
				}
			}
			if got := left(t, n); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// Pods of the configuration and pods of the plugin do not meet.
func TestStaticPods(t *testing.T) {
	static, err := lab.NewNamespace("static")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { static.Close() })
	pod := func(addr string) []node.Pod {
		return []node.Pod{{Name: "static", Netns: static.Path(), Addresses: []netip.Addr{netip.MustParseAddr(addr)}}}
	}
	n := newNode(t, func(c *node.Config) { c.Pods = pod("10.244.1.2") })
	r := newRuntime(t, n, "1.1.0", nil)
	s := r.sandbox("pod")
	r.mustAdd(s)
	if got := s.addrs[0].String(); got != "10.244.1.3" {
		t.Errorf("got %s, want the address after the static pod's", got)
	}
	mustPing(t, s.Namespace, netip.MustParseAddr("10.244.1.2"))
	mustFail(t, n, func(c *node.Config) { c.Pods = pod("10.244.1.3") }, "pods[0].addresses: 10.244.1.3 is leased to pod default/pod-pod", "choose another address")
	start(t, n)
	mustReach(t, s, netip.MustParseAddr("10.244.1.2"))
	r.mustDel(s)
}

// Leases that cannot be read, and sockets that cannot be opened, are one sentence, and nothing is lost by it.
func TestStartErrors(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	s := r.sandbox("pod")
	r.mustAdd(s)
	if err := n.Daemon().Stop(timeout); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(n.Config.RunDir, "leases.db")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := append([]byte(nil), good...)
	for i := range spoilt {
		if i >= 8192 { // the pages behind bbolt's own
			spoilt[i] ^= 0x55
		}
	}
	for name, b := range map[string][]byte{
		"garbage": []byte(strings.Repeat("leases", 10000)), "cut short": good[:len(good)/4], "beginning only": good[:100], "pages spoilt": spoilt,
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			mustFail(t, n, func(*node.Config) {}, "leases.db", "move the file away")
			if now, err := os.ReadFile(file); err != nil || string(now) != string(b) {
				t.Errorf("%v: the file was changed", err)
			}
		})
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	mustFail(t, n, func(c *node.Config) { c.CNI.Socket = filepath.Join(c.RunDir, strings.Repeat("x", 100)) }, "cni.socket", "107 bytes", "shorter")
	mustFail(t, n, func(c *node.Config) { c.CNI.Socket = file }, "cni.socket", "is no socket")
	mustFail(t, n, func(c *node.Config) { c.CNI.Socket = "/nowhere/cni.sock" }, "cni.socket", "/nowhere", "choose another path")
	start(t, n)
	mustReach(t, s, netip.MustParseAddr("10.244.1.1"))
	if err := r.check(s); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// mustFail starts the daemon with a changed configuration and expects it to end with all the words in one line.
func mustFail(t *testing.T, n *lab.Node, change func(*node.Config), words ...string) {
	t.Helper()
	if n.Daemon() != nil {
		if err := n.Daemon().Kill(); err != nil {
			t.Fatal(err)
		}
	}
	good := n.Config
	change(&n.Config)
	err := n.Start()
	n.Config = good
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.Daemon().Done():
	case <-time.After(15 * time.Second):
		t.Fatalf("it runs, instead of an error with %q:\n%s", words, n.Daemon().Tail())
	}
	lines := strings.Split(strings.TrimSpace(n.Daemon().Tail()), "\n")
	last := lines[len(lines)-1]
	t.Log(last)
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("%q is not in: %s", w, last)
		}
	}
}
