package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	plugin "github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// What a runtime says wrong gets the specification's code, and nothing is made.
func TestInvalidRequests(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	s := r.sandbox("pod")
	good := func(mutate func(env map[string]string, conf map[string]any)) error {
		env := map[string]string{
			"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "pod", "CNI_NETNS": s.Path(), "CNI_IFNAME": "eth0",
			"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=pod",
		}
		conf := map[string]any{"cniVersion": "1.1.0", "name": "middleway", "type": "middleway-cni", "socket": socketOf(n)}
		mutate(env, conf)
		var list []string
		for k, v := range env {
			list = append(list, k+"="+v)
		}
		b, err := json.Marshal(conf)
		if err != nil {
			t.Fatal(err)
		}
		version, _ := conf["cniVersion"].(string)
		return said(t, r, list, string(b), version)
	}
	type env = map[string]string
	type conf = map[string]any
	for _, tt := range []struct {
		name   string
		mutate func(env, conf)
		code   uint
		words  string
	}{
		{"version too old", func(_ env, c conf) { c["cniVersion"] = "0.2.0" }, 1, "incompatible"},
		{"CHECK before 0.4.0", func(e env, c conf) { e["CNI_COMMAND"], c["cniVersion"] = "CHECK", "0.3.1" }, 1, "CHECK"},
		{"GC before 1.1.0", func(e env, c conf) { e["CNI_COMMAND"], c["cniVersion"] = "GC", "1.0.0" }, 1, "GC"},
		{"STATUS before 1.1.0", func(e env, c conf) { e["CNI_COMMAND"], c["cniVersion"] = "STATUS", "1.0.0" }, 1, "STATUS"},
		{"IPAM plugin", func(_ env, c conf) { c["ipam"] = conf{"type": "host-local"} }, 2, `ipam.type: "host-local"`},
		{"unknown command", func(e env, _ conf) { e["CNI_COMMAND"] = "ATTACH" }, 4, "ATTACH"},
		{"no container", func(e env, _ conf) { delete(e, "CNI_CONTAINERID") }, 4, "CNI_CONTAINERID"},
		{"container is a path", func(e env, _ conf) { e["CNI_CONTAINERID"] = "../../etc" }, 4, "containerID"},
		{"container too long", func(e env, _ conf) { e["CNI_CONTAINERID"] = strings.Repeat("a", 201) }, 4, "CNI_CONTAINERID; it is longer than 200"},
		{"interface is a path", func(e env, _ conf) { e["CNI_IFNAME"] = "../eth0" }, 4, "interface name"},
		{"interface too long", func(e env, _ conf) { e["CNI_IFNAME"] = "eth0123456789012" }, 4, "too long"},
		{"interface is a pattern", func(e env, _ conf) { e["CNI_IFNAME"] = "eth%d" }, 4, "CNI_IFNAME"},
		{"interface is lo", func(e env, _ conf) { e["CNI_IFNAME"] = "lo" }, 4, "CNI_IFNAME"},
		{"interface is not printable", func(e env, _ conf) { e["CNI_IFNAME"] = "eth\x1b" }, 4, "CNI_IFNAME"},
		{"arguments are no pairs", func(e env, _ conf) { e["CNI_ARGS"] = "K8S_POD_NAME" }, 4, "CNI_ARGS"},
		{"unknown argument", func(e env, _ conf) { e["CNI_ARGS"] = "COLOR=red" }, 4, "COLOR"},
		{"pod's name not printable", func(e env, _ conf) { e["CNI_ARGS"] = "K8S_POD_NAME=a\nb" }, 4, "K8S_POD_NAME"},
		{"no configuration", func(_ env, c conf) { clear(c); c["cniVersion"] = "1.1.0" }, 7, "name"},
		{"network's name is a path", func(_ env, c conf) { c["name"] = "../x" }, 7, "network name"},
		{"socket is relative", func(_ env, c conf) { c["socket"] = "cni.sock" }, 7, "socket"},
		{"socket of the wrong kind", func(_ env, c conf) { c["socket"] = 7 }, 6, "socket"},
		{"prevResult is none", func(_ env, c conf) { c["prevResult"] = conf{"cniVersion": "1.1.0", "ips": "x"} }, 6, "prevResult"},
		{"prevResult contradicts itself", func(_ env, c conf) {
			c["prevResult"] = conf{"cniVersion": "1.1.0", "ips": []any{conf{"address": "10.1.1.1/24", "interface": 3}}}
		}, 7, "interface 3 of 0"},
		{"CHECK without prevResult", func(e env, _ conf) { e["CNI_COMMAND"] = "CHECK" }, 7, "prevResult"},
		{"no such namespace", func(e env, _ conf) { e["CNI_NETNS"] = "/run/netns/gone" }, 8, "/run/netns/gone"},
		{"not a namespace", func(e env, _ conf) { e["CNI_NETNS"] = "/proc/version" }, 8, "/proc/version"},
		{"relative namespace", func(e env, _ conf) { e["CNI_NETNS"] = "netns" }, 8, "absolute"},
		{"the plugin's own namespace", func(e env, _ conf) { e["CNI_NETNS"] = "/proc/self/ns/net" }, 8, "own"},
		{"address is none", func(e env, _ conf) { e["CNI_ARGS"] = "IP=10.244.1" }, 101, "10.244.1"},
		{"address outside", func(e env, _ conf) { e["CNI_ARGS"] = "IP=10.244.2.7" }, 101, "10.244.2.7"},
		{"address of the gateway", func(e env, _ conf) { e["CNI_ARGS"] = "IP=10.244.1.1" }, 101, "10.244.1.1"},
		{"broadcast address", func(e env, _ conf) { e["CNI_ARGS"] = "IP=10.244.1.255" }, 101, "10.244.1.255"},
		{"two addresses of a family", func(e env, _ conf) { e["CNI_ARGS"] = "IP=10.244.1.7,10.244.1.8" }, 101, "ask for one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantCode(t, good(tt.mutate), tt.code, tt.words)
			if got := append(left(t, n), devices(t, s.Namespace)...); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
	wantCode(t, said(t, r, []string{"CNI_COMMAND=STATUS"}, "{", "1.1.0"), 6)
	if err := good(func(map[string]string, map[string]any) {}); err != nil {
		t.Errorf("without a mistake: %v", err)
	}
}

// ADD of what is there fails and harms nothing.
func TestAddTwice(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	a, b := r.sandbox("a"), r.sandbox("b")
	r.mustAdd(a)
	want := a.addrs[0]
	again := *a
	_, err := r.add(&again)
	wantCode(t, err, 103, "eth0", "DEL")
	elsewhere := &sandbox{Namespace: b.Namespace, conf: &libcni.RuntimeConf{ContainerID: "a", NetNS: b.Path(), IfName: "eth0"}}
	_, err = r.add(elsewhere)
	wantCode(t, err, 102, "a/eth0", "DEL")
	r.mustAdd(b)
	mustPing(t, b.Namespace, want)

	// Somebody else's interface, of whatever kind.
	c := r.sandbox("c")
	nl, err := c.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	for _, other := range []netlink.Link{&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN}, &netlink.Bridge{LinkAttrs: attrs}} {
		if err := c.Do(func() error { return netlink.LinkAdd(other) }); errors.Is(err, syscall.EOPNOTSUPP) {
			continue // this kernel has no bridges
		} else if err != nil {
			t.Fatal(err)
		}
		_, err = r.add(c)
		wantCode(t, err, 103, "left as it is")
		r.mustDel(c)
		if got := devices(t, c.Namespace); len(got) != 1 {
			t.Errorf("%s device of somebody else: %v", other.Type(), got)
		}
		if link, err := nl.LinkByName("eth0"); err != nil || nl.LinkDel(link) != nil {
			t.Fatal(err)
		}
	}
	r.mustAdd(c)
	mustPing(t, c.Namespace, want)

	// A second interface of the same container: the first keeps the default route.
	second := &sandbox{Namespace: a.Namespace, conf: &libcni.RuntimeConf{ContainerID: "a", NetNS: a.Path(), IfName: "eth1"}}
	r.mustAdd(second)
	mustPing(t, b.Namespace, want)
	mustPing(t, a.Namespace, b.addrs[1])
	if err := r.check(second); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r.mustDel(second)
	mustPing(t, b.Namespace, want)
}

// An exhausted range is an error of its own; STATUS tells of it; an address comes back last.
func TestExhausted(t *testing.T) {
	n := newNode(t, func(c *node.Config) {
		c.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/29")}
		c.Pods = nil
	})
	r := newRuntime(t, n, "1.1.0", nil)
	var pods []*sandbox
	for _, id := range []string{"a", "b", "c", "d", "e"} { // .2 to .6
		s := r.sandbox(id)
		r.mustAdd(s)
		pods = append(pods, s)
	}
	last := r.sandbox("last")
	_, err := r.add(last)
	wantCode(t, err, 100, "10.244.1.0/29", "podCIDR")
	wantCode(t, r.status(), 50, "10.244.1.0/29")
	if got := devices(t, last.Namespace); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	r.mustDel(last)
	r.mustDel(pods[3])
	r.mustDel(pods[0])
	if err := r.status(); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	r.mustAdd(last)
	if got := last.addrs[0].String(); got != "10.244.1.2" {
		t.Errorf("got %v, want the address after the one given last that is free", got)
	}
	mustPing(t, last.Namespace, pods[4].addrs[0])
}

// Addresses can be asked for by the capability "ips" and by CNI_ARGS.
func TestRequestedAddresses(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	a, b := r.sandbox("a"), r.sandbox("b")
	a.conf.CapabilityArgs = map[string]any{"ips": []string{"10.244.1.77/24", "fd00:10:244:1::77"}}
	r.mustAdd(a)
	if a.addrs[0].String() != "10.244.1.77" || a.addrs[1].String() != "fd00:10:244:1::77" {
		t.Errorf("got %v", a.addrs)
	}
	b.conf.Args = append(b.conf.Args, [2]string{"IP", "10.244.1.77"})
	_, err := r.add(b)
	wantCode(t, err, 101, "10.244.1.77 belongs to default/pod-a")
	b.conf.Args[len(b.conf.Args)-1][1] = "10.244.1.78"
	r.mustAdd(b)
	if b.addrs[0].String() != "10.244.1.78" || b.addrs[1].String() != "fd00:10:244:1::2" {
		t.Errorf("got %v", b.addrs)
	}
	mustPing(t, a.Namespace, b.addrs[0])
}

// CHECK sees what is wrong with a pod, and not what others added to it.
func TestCheck(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	type handle struct {
		*netlink.Handle
		dev netlink.Link
	}
	for _, tt := range []struct {
		name  string
		spoil func(handle) error
		words string // "": it is still as it should be
	}{
		{"untouched", func(handle) error { return nil }, ""},
		{"more addresses", func(h handle) error {
			a, _ := netlink.ParseAddr("203.0.113.9/32")
			return h.AddrAdd(h.dev, a)
		}, ""},
		{"more routes", func(h handle) error {
			n, err := netlink.ParseIPNet("203.0.113.0/24")
			if err != nil {
				return err
			}
			return h.RouteAdd(&netlink.Route{LinkIndex: h.dev.Attrs().Index, Dst: n, Scope: netlink.SCOPE_LINK})
		}, ""},
		{"down", func(h handle) error { return h.LinkSetDown(h.dev) }, "is down"},
		{"other MTU", func(h handle) error { return h.LinkSetMTU(h.dev, 1300) }, "1300 bytes"},
		{"no address", func(h handle) error {
			addrs, err := h.AddrList(h.dev, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			return h.AddrDel(h.dev, &addrs[0])
		}, "does not have the address fd00:10:244:1::"},
		{"no default route", func(h handle) error {
			routes, err := h.RouteList(h.dev, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Gw != nil {
					err = h.RouteDel(&r)
				}
			}
			return err
		}, "no route to 0.0.0.0/0"},
		{"no device", func(h handle) error { return h.LinkDel(h.dev) }, "eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := r.sandbox("pod")
			r.mustAdd(s)
			defer r.mustDel(s)
			nl, err := s.Netlink()
			if err != nil {
				t.Fatal(err)
			}
			dev, err := nl.LinkByName("eth0")
			if err == nil {
				err = tt.spoil(handle{nl, dev})
			}
			if err != nil {
				t.Fatal(err)
			}
			err = r.check(s)
			if tt.words == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, 104, tt.words)
		})
	}
	t.Run("no lease", func(t *testing.T) {
		s := r.sandbox("pod")
		r.mustAdd(s)
		if err := collect(t, r, "middleway"); err != nil { // libcni's GC would forget the result too
			t.Fatal(err)
		}
		wantCode(t, r.check(s), 104, "no addresses leased")
	})
	t.Run("other namespace", func(t *testing.T) {
		s, other := r.sandbox("pod"), r.sandbox("other")
		r.mustDel(s)
		r.mustAdd(s)
		s.conf.NetNS = other.Path()
		wantCode(t, r.check(s), 104, "is not the network namespace")
	})
}

// GC ends what is not valid of its own network and nothing else.
func TestGC(t *testing.T) {
	n := newNode(t, nil)
	ours := newRuntime(t, n, "1.1.0", nil)
	theirs := newRuntime(t, n, "1.1.0", func(conf map[string]any) { conf["name"] = "another" })
	valid, stale, gone, other := ours.sandbox("valid"), ours.sandbox("stale"), ours.sandbox("gone"), theirs.sandbox("other")
	for _, s := range []*sandbox{valid, stale, gone} {
		ours.mustAdd(s)
	}
	theirs.mustAdd(other)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if err := collect(t, ours, "middleway", "valid"); err != nil {
		t.Fatal(err)
	}
	if got := devices(t, stale.Namespace); len(got) > 0 {
		t.Errorf("left in a pod that is not valid: %v", got)
	}
	st := mustStatus(t, n)
	if len(st.Attachments) != 2 || st.Attachments[0].ContainerID != "other" || st.Attachments[1].ContainerID != "valid" {
		t.Errorf("left: %+v", st.Attachments)
	}
	mustPing(t, valid.Namespace, other.addrs[0])
}

// collect is a GC without libcni, which deletes by itself what it remembers.
func collect(t *testing.T, r *runtime, network string, valid ...string) error {
	t.Helper()
	list := []any{}
	for _, id := range valid {
		list = append(list, map[string]any{"containerID": id, "ifname": "eth0"})
	}
	b, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": network, "type": "middleway-cni", "socket": socketOf(r.node), "cni.dev/valid-attachments": list,
	})
	if err != nil {
		t.Fatal(err)
	}
	return said(t, r, []string{"CNI_COMMAND=GC"}, string(b), "1.1.0")
}

// Without a daemon ADD shall be tried again, CHECK fails, STATUS says that pods suffer, and DEL succeeds.
func TestDaemonDown(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	a, b := r.sandbox("a"), r.sandbox("b")
	r.mustAdd(a)
	for _, tt := range []struct {
		name string
		stop func() error
	}{
		{"killed", func() error { return n.Daemon().Kill() }},
		{"ended", func() error { return n.Daemon().Stop(timeout) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.stop(); err != nil {
				t.Fatal(err)
			}
			_, err := r.add(b)
			wantCode(t, err, 11, "middleway node")
			wantCode(t, r.check(a), 11)
			wantCode(t, r.status(), 51)
			wantCode(t, r.gc(a), 11)
			r.mustDel(b)
			start(t, n)
			if err := r.status(); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK: %v", err)
			}
		})
	}
}

// A user who may not ask the daemon is told so.
func TestPermission(t *testing.T) {
	if b, _ := os.ReadFile("/proc/self/uid_map"); !strings.Contains(string(b), "4294967295") {
		t.Skip("an ordinary user cannot become another one")
	}
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, func(c *node.Config) { c.CNI.Socket = filepath.Join(dir, "cni.sock") })
	r := newRuntime(t, n, "1.1.0", nil)
	p := lab.Command(nil, asNobody, socketOf(n))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v: %s", err, p.Tail())
	}
	if !strings.Contains(p.Tail(), `"code": 50`) || !strings.Contains(p.Tail(), "run the container runtime as root") {
		t.Error(p.Tail())
	}
	if err := r.status(); err != nil {
		t.Errorf("as root: %v", err)
	}
	st, err := os.Stat(n.Config.CNI.Socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

// asNobody is the role of a plugin that an ordinary user executes.
const asNobody = "plugin-as-nobody"

func runAsNobody(args []string) int {
	in, out, err := os.Pipe()
	if err == nil {
		fmt.Fprintf(out, `{"cniVersion":"1.1.0","name":"middleway","type":"middleway-cni","socket":%q}`, args[0])
		os.Stdin = in
		err = errors.Join(out.Close(), os.Setenv("CNI_COMMAND", "STATUS"), os.Setenv("CNI_PATH", "/"),
			syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
	}
	if err != nil {
		fmt.Println(err)
		return 125
	}
	if plugin.Main("test") != 1 {
		return 1
	}
	return 0
}

// The socket's peer has a deadline: one that says nothing keeps nobody waiting.
func TestSilentPeer(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	for range 10 {
		c, err := net.Dial("unix", socketOf(n))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	s := r.sandbox("pod")
	r.mustAdd(s)
	mustPing(t, s.Namespace, netip.MustParseAddr("10.244.1.1"))
}
