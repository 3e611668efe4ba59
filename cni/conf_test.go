package cni

import (
	"net"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Whatever a runtime says, the plugin answers with a result or a coded error, and asks the daemon nothing that it refuses.
func FuzzConf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"middleway","type":"middleway-cni","socket":"/run/middleway/cni.sock","runtimeConfig":{"ips":["10.244.1.7/24"]}}`),
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;IP=10.244.1.7", "0123abc", "eth0")
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"n","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"::"},{"hostPort":53,"containerPort":53,"protocol":"UDP"}]}}`),
		"", "a", "eth0")
	f.Add([]byte(`{"cniVersion":"0.4.0","name":"n","prevResult":{"interfaces":[{"name":"a"}],"ips":[{"version":"4","address":"10.1.1.1/24","interface":0}]}}`), "", "a", "net1")
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"::1/0","interface":-1}]}}`), "A=B", "a", "eth0")
	f.Add([]byte(`{"prevResult":{"interfaces":[null],"ips":[null],"routes":[null]}, "cniVersion":"1.1.0"}`), "IP=", "", "")
	f.Fuzz(func(t *testing.T, stdin []byte, kv, container, ifname string) {
		c, err := parseConf(stdin)
		if err != nil {
			coded(err, codeInternal, "")
			return
		}
		prev, err := c.previous()
		if err != nil {
			return
		}
		a := &skel.CmdArgs{ContainerID: container, IfName: ifname, Netns: "/run/netns/x", Args: kv}
		if r, err := attachment(opAdd, a, c); err == nil {
			if err := r.check(); err != nil {
				t.Errorf("the daemon would refuse what the plugin asks: %v", err)
			}
		}
		g := grant{Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}, Gateways: []netip.Addr{netip.MustParseAddr("10.244.1.1")}, MTU: 1450}
		if prev != nil {
			expected(prev, g, ifname, a.Netns)
		}
		if _, err := merge(prev, g, "eth0", a.Netns, c.CNIVersion).GetAsVersion(c.CNIVersion); err != nil {
			t.Logf("version %q: %v", c.CNIVersion, err)
		}
	})
}

// A later plugin may change what it likes of ours; CHECK looks for what is still in prevResult.
func TestExpected(t *testing.T) {
	addr := netip.MustParseAddr
	g := grant{Addrs: []netip.Addr{addr("10.244.1.2"), addr("fd00::2")}, Gateways: []netip.Addr{addr("10.244.1.1"), addr("fd00::1")}, MTU: 1450}
	prev := merge(nil, g, "eth0", "/n", "1.1.0")
	e, ok := expected(prev, g, "eth0", "/n")
	if !ok || len(e.Addrs) != 2 || len(e.Routes) != 4 || len(e.MTUs) != 1 {
		t.Errorf("own result: %+v, %v", e, ok)
	}
	prev.Interfaces[0].Mtu = 1300
	prev.Routes = prev.Routes[1:]
	prev.Routes = append(prev.Routes, &types.Route{Dst: net.IPNet{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(24, 32)}})
	prev.IPs = append(prev.IPs, &types100.IPConfig{Address: net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}})
	e, ok = expected(prev, g, "eth0", "/n")
	if !ok || len(e.Addrs) != 2 || len(e.Routes) != 3 || len(e.MTUs) != 2 {
		t.Errorf("changed result: %+v, %v", e, ok)
	}
	for _, other := range [][2]string{{"eth1", "/n"}, {"eth0", "/m"}} {
		if _, ok := expected(prev, g, other[0], other[1]); ok {
			t.Errorf("%v was found", other)
		}
	}
}
