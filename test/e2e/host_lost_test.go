package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// hostDevice returns a node's mw0 with a handle that changes it.
func hostDevice(t *testing.T, n *lab.Node) (*netlink.Handle, netlink.Link) {
	t.Helper()
	nl, err := n.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	dev, err := nl.LinkByName("mw0")
	if err != nil {
		t.Fatal(err)
	}
	return nl, dev
}

// reaches reports whether a ping is answered.
func reaches(t *testing.T, from *lab.Namespace, dst netip.Addr) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := from.Ping(ctx, dst, 56)
	return err == nil
}

// TestHostDeviceComesBack: whatever somebody takes of the host's device comes back by itself; pods notice nothing.
func TestHostDeviceComesBack(t *testing.T) {
	for name, portable := range map[string]bool{"multi-queue": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(_ int, c *node.Config) { c.PortableDevices = portable }})
			n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
			whole, routes := mustStatus(t, n).Host, throughMW0(t, n.Namespace)
			beside := transfer{from: near.Namespace, to: far.Namespace, addr: far.Addr4, rate: 10e6, timeout: 2 * time.Minute}.start(t)
			for i, step := range []struct {
				name  string
				spoil func(*netlink.Handle, netlink.Link) error
			}{
				{"removed", func(nl *netlink.Handle, dev netlink.Link) error { return nl.LinkDel(dev) }},
				{"set down and up", func(nl *netlink.Handle, dev netlink.Link) error {
					return errors.Join(nl.LinkSetDown(dev), nl.LinkSetUp(dev))
				}},
				{"set down", func(nl *netlink.Handle, dev netlink.Link) error { return nl.LinkSetDown(dev) }},
				{"without routes", func(nl *netlink.Handle, dev netlink.Link) error {
					routes, err := nl.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: dev.Attrs().Index}, netlink.RT_FILTER_OIF)
					for _, r := range routes {
						err = errors.Join(err, nl.RouteDel(&r))
					}
					return err
				}},
				{"without addresses", func(nl *netlink.Handle, dev netlink.Link) error {
					addrs, err := nl.AddrList(dev, netlink.FAMILY_ALL)
					for _, a := range addrs {
						err = errors.Join(err, nl.AddrDel(dev, &a))
					}
					return err
				}},
			} {
				nl, dev := hostDevice(t, n)
				if err := step.spoil(nl, dev); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				for _, pl := range plans {
					eventually(t, fmt.Sprintf("%s: %s: the host reaches a far pod", step.name, pl.name), func() bool { return reaches(t, n.Namespace, pl.pod(far)) })
					mustPing(t, n.Namespace, pl.pod(near), 56)
					mustPing(t, far.Namespace, pl.host(1), 56)
					mustPing(t, near.Namespace, pl.node(1), 56)
				}
				eventually(t, step.name+": all is there", func() bool {
					st := mustStatus(t, n).Host
					return st.Missing == "" && slices.Equal(st.Addresses, whole.Addresses) && slices.Equal(st.Routes, whole.Routes) &&
						slices.Equal(throughMW0(t, n.Namespace), routes)
				})
				if code, body := getFrom(t, n, "/readyz"); code != http.StatusOK {
					t.Errorf("%s: /readyz: %d %s", step.name, code, body)
				}
				if said := strings.Count(n.Daemon().Tail(), "the host's device is put back"); said <= i {
					t.Errorf("%s: said %d times that the device is put back:\n%s", step.name, said, n.Daemon().Tail())
				}
			}
			t.Log(transfer{from: n.Namespace, local: lab.NodeAddr4(1).Addr(), to: far.Namespace, addr: far.Addr4, seen: host(lab.PodCIDR4(1), 0), size: hostSize}.run(t))
			beside.stop()
			t.Log(beside.wait(t))

			_, before := hostDevice(t, n)
			killAndStart(t, n) // the device that was put back outlives the daemon too
			if _, after := hostDevice(t, n); after.Attrs().Index != before.Attrs().Index {
				t.Errorf("mw0: interface %d became %d", before.Attrs().Index, after.Attrs().Index)
			}
		})
	}
}

// TestHostDeviceTaken: the device goes, and somebody else's route is in its way. Status and /readyz say so until it is gone.
func TestHostDeviceTaken(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	n, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	nl, dev := hostDevice(t, n)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mustHave(t, nl.LinkAdd(bridge))
	must(nl.LinkSetUp(bridge))
	_, dst, err := net.ParseCIDR(lab.PodCIDR4(2).String())
	must(err)
	route := &netlink.Route{LinkIndex: bridge.Index, Dst: dst, Scope: netlink.SCOPE_LINK, Priority: 50}
	must(nl.RouteAdd(route))
	must(nl.LinkDel(dev))

	words := []string{"mw0 is gone", "br0", "ip route del 10.244.2.0/24"}
	lacks := func(text string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}
	eventually(t, "the status tells", func() bool { return !lacks(mustStatus(t, n).Host.Missing) })
	t.Log(mustStatus(t, n).Host.Missing)
	if st := mustStatus(t, n).Host; st.Device != "mw0" || len(st.Addresses) != 0 || len(st.Routes) != 0 {
		t.Errorf("status: %+v", st)
	}
	if code, body := getFrom(t, n, "/readyz"); code != http.StatusServiceUnavailable || lacks(string(body)) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	mustPing(t, near.Namespace, far.Addr4, 56)
	must(nl.RouteDel(route))
	eventually(t, "the host reaches a far pod", func() bool { return reaches(t, n.Namespace, far.Addr4) })
	eventually(t, "the node is ready", func() bool { code, _ := getFrom(t, n, "/readyz"); return code == http.StatusOK })
	if said := strings.Count(n.Daemon().Tail(), "could not be put back"); said != 1 {
		t.Errorf("the log says %d times that it could not be put back:\n%s", said, n.Daemon().Tail())
	}
}

// TestPodDeviceGone: somebody removes the interface of a pod that lives on. Packets to it are answered, others move, and the
// status names it.
func TestPodDeviceGone(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	n, pod, near, far := cl.Nodes[0], cl.Nodes[0].Pods[0], cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]
	mustPing(t, far.Namespace, pod.Addr4, 56)
	nl, err := pod.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	dev, err := nl.LinkByName("eth0")
	if err == nil {
		err = nl.LinkDel(dev)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status names the pod", func() bool {
		st := mustStatus(t, n).Stack
		return slices.Equal(st.Lost, []string{n.Config.Pods[0].Name}) && st.Attachments == 1
	})
	for _, pl := range plans {
		for from, ns := range map[string]*lab.Namespace{"the other pod": near.Namespace, "a far pod": far.Namespace, "the host": n.Namespace} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := ns.Ping(ctx, pl.pod(pod), 56)
			cancel()
			if err == nil || !strings.Contains(err.Error(), pl.unreachable) {
				t.Errorf("%s, %s: %v, want %s", pl.name, from, err, pl.unreachable)
			}
		}
		mustPing(t, far.Namespace, pl.pod(near), 56)
	}
	if said := strings.Count(n.Daemon().Tail(), "device is gone"); said != 1 {
		t.Errorf("the log says it %d times:\n%s", said, n.Daemon().Tail())
	}
	killAndStart(t, n) // which makes a new one
	mustPing(t, far.Namespace, pod.Addr4, 56)
	if st := mustStatus(t, n).Stack; len(st.Lost) > 0 || st.Attachments != 2 {
		t.Errorf("after a restart: lost %v, %d attached", st.Lost, st.Attachments)
	}
}
