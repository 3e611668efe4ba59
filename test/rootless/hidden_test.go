package rootless

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// What a node has behind a port driver, on every host the same: slirp4netns' own plan.
var (
	hiddenAddr    = netip.MustParsePrefix("10.0.2.100/24")
	hiddenGateway = netip.MustParseAddr("10.0.2.2")
)

const vxlanPort = 8472

// roleRelay is a port driver: LISTEN TARGET. What comes to the one is sent on to the other, from an address of the relay's own.
const roleRelay = "host-relay"

func relay(args []string) int {
	in, err := net.ListenPacket("udp4", args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	out, err := net.Dial("udp4", args[1])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("relaying")
	for b := make([]byte, 1<<16); ; {
		n, _, err := in.ReadFrom(b)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_, _ = out.Write(b[:n]) // what nobody takes is lost, as on a wire
	}
}

// hide makes the configuration that of a node behind a port driver, which way makes.
func (h *host) hide(hosts []*host, device string, way func(h *host, pid int), change func(*node.Config)) {
	h.configure(func(c *node.Config) {
		c.Sockets, c.Address, c.PublicAddress, c.VXLAN.AnySource = "", hiddenAddr.Addr(), h.addr(false), true
		c.Peers = peersOf(h, hosts, false)
		c.Kubernetes.Folder, c.Services.CIDRs = h.fill(len(hosts)), lab.ServiceCIDRs()
		c.DNS.ResolvConf = "none"
		if change != nil {
			change(c)
		}
	})
	h.plan.Device, h.plan.Own, h.plan.Gateway = device, hiddenAddr, hiddenGateway
	h.wayOut = func(pid int) { way(h, pid) }
}

// byRelay joins a node to its host by a veth, and lets a relay hand in what comes for it: so every peer seems to be the relay.
func byRelay(h *host, pid int) {
	h.t.Helper()
	nl, err := h.ns.Netlink()
	must(h.t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "to-node"
	err = nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: h.plan.Device, PeerNamespace: netlink.NsPid(pid)})
	if errors.Is(err, errors.ErrUnsupported) {
		h.t.Skip("this kernel has no veth: ", err)
	}
	must(h.t, err)
	must(h.t, h.ns.AddAddr("to-node", netip.PrefixFrom(hiddenGateway, hiddenAddr.Bits())))
	must(h.t, h.ns.SetUp("to-node"))
	must(h.t, h.ns.Sysctl("net.ipv4.ip_forward", "1"))
	p := lab.Command(h.ns, roleRelay, netip.AddrPortFrom(h.addr(false), vxlanPort).String(), netip.AddrPortFrom(hiddenAddr.Addr(), vxlanPort).String())
	must(h.t, p.Start())
	h.t.Cleanup(func() { p.Kill() })
	eventually(h.t, 10*time.Second, "the relay runs", func() error {
		if !strings.Contains(p.Tail(), "relaying") {
			return errors.New(p.Tail())
		}
		return nil
	})
}

// bySlirp4netns gives a node slirp4netns' way out, and has its UDP port forwarded, as a rootless container engine does, unless its sockets are
// handed in.
func bySlirp4netns(h *host, pid int) {
	t := h.t
	t.Helper()
	path, err := exec.LookPath("slirp4netns")
	if err != nil {
		t.Skip("slirp4netns is not installed: ", err)
	}
	api := h.path("slirp")
	p := h.user(path, "--mtu=65520", "--disable-host-loopback", "--api-socket", api, fmt.Sprint(pid), h.plan.Device)
	must(t, p.Start())
	t.Cleanup(func() { p.Kill() })
	if h.config.Sockets != "" {
		return
	}
	request, err := json.Marshal(map[string]any{"execute": "add_hostfwd", "arguments": map[string]any{
		"proto": "udp", "host_addr": h.addr(false).String(), "host_port": vxlanPort, "guest_addr": hiddenAddr.Addr().String(), "guest_port": vxlanPort,
	}})
	must(t, err)
	eventually(t, 20*time.Second, "slirp4netns forwards the port", func() error {
		select {
		case <-p.Done():
			t.Fatalf("slirp4netns: %v: %s", p.Wait(), p.Tail())
		default:
		}
		c, err := net.Dial("unix", api)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			return err
		}
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err == nil && strings.Contains(string(b[:n]), "error") {
			err = errors.New(string(b[:n]))
		}
		return err
	})
}

// TestHiddenSource: nodes on hosts whose nodes all have the same address, with port drivers between them, know each other all the same: by
// tokens behind the relay, which hides where datagrams come from, and by their public addresses behind slirp4netns, which does not.
func TestHiddenSource(t *testing.T) {
	for _, tt := range []struct {
		name   string
		device string
		way    func(*host, int)
		any    bool
	}{{"relay", "eth0", byRelay, true}, {"slirp4netns", "tap0", bySlirp4netns, false}} {
		t.Run(tt.name, func(t *testing.T) {
			hosts := newHosts(t, 2)
			for _, h := range hosts {
				h.hide(hosts, tt.device, tt.way, func(c *node.Config) { c.MTU, c.VXLAN.AnySource = 1450, tt.any })
				h.start()
			}
			for _, h := range hosts {
				h.waitReady()
				awaitPeers(t, h, 1)
			}
			checkReach(t, hosts[0], hosts[1], 1450)
			checkReach(t, hosts[1], hosts[0], 1450)
		})
	}
}

// TestHiddenSourceRefused: without anySource a node believes the source address alone.
func TestHiddenSourceRefused(t *testing.T) {
	hosts := newHosts(t, 2)
	for _, h := range hosts {
		h.hide(hosts, "eth0", byRelay, func(c *node.Config) { c.VXLAN.AnySource = h.number == 1 })
		h.start()
	}
	for _, h := range hosts {
		h.waitReady()
	}
	strict := hosts[1]
	eventually(t, 20*time.Second, "datagrams from the relay are dropped", func() error {
		st, err := strict.status()
		if err == nil && st.Stack.Drops["unknown-peer"] == 0 {
			err = fmt.Errorf("drops %v", st.Stack.Drops)
		}
		return err
	})
	if _, err := hosts[0].run(hosts[0].plan.Pods[0], "tool", "ping", "-c", "2", "-i", "0.2", podAddrs(2, 1)[0].String()); err == nil {
		t.Error("a pod of a node that knows peers by their address alone answers through a port driver")
	}
}
