package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/node/underlay"
)

// interfacesOf reads "lo 127.0.0.1/8 ::1/128; eth0 192.168.254.11/24"; a name with a dash in front is that of an interface that is down.
func interfacesOf(text string) (all []underlay.Interface) {
	for _, line := range strings.Split(text, "; ") {
		fields := strings.Fields(line)
		i := underlay.Interface{Name: strings.TrimPrefix(fields[0], "-"), Up: fields[0][0] != '-', Loopback: fields[0] == "lo", MTU: 1500}
		for _, a := range fields[1:] {
			i.Addrs = append(i.Addrs, underlay.Addr{Prefix: netip.MustParsePrefix(a)})
		}
		all = append(all, i)
	}
	return all
}

func TestFronts(t *testing.T) {
	const (
		lo   = "lo 127.0.0.1/8 ::1/128; "
		both = lo + "eth0 192.168.254.11/24 fd00:254::11/64 fe80::11/64; eth1 203.0.113.7/24; mw0 10.244.1.0/32"
	)
	for _, row := range []struct {
		name       string
		text       string // of nodePorts.addresses
		interfaces string
		primaries  string
		want       string
	}{
		{"by default", "", both, "192.168.254.11 fd00:254::11", "127.0.0.1 192.168.254.11 ::1 fd00:254::11"},
		{"without IPv6", "", "lo 127.0.0.1/8; eth0 192.168.254.11/24", "192.168.254.11 fd00:254::11", "127.0.0.1 192.168.254.11"},
		{"an address that the host has lost", "", lo + "eth0 192.168.254.99/24", "192.168.254.11", "127.0.0.1 ::1"},
		{"a node on the loopback", "", lo + "eth0 203.0.113.7/24", "127.84.3.1", "127.0.0.1 127.84.3.1 ::1"},
		{"primary alone", "[primary]", both, "192.168.254.11", "192.168.254.11"},
		{"a range", "[203.0.113.0/24]", both, "192.168.254.11", "203.0.113.7"},
		{"all of IPv4, none of pods' networks", "[0.0.0.0/0]", both, "192.168.254.11", "127.0.0.1 192.168.254.11 203.0.113.7"},
		{"all of IPv6, none of a link", `["::/0"]`, both, "192.168.254.11", "::1 fd00:254::11"},
		{"once, however often it is named", "[primary, 192.168.254.0/24]", both, "192.168.254.11", "192.168.254.11"},
		{"an interface that is down", "[203.0.113.0/24]", "-eth1 203.0.113.7/24", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := least
			if row.text != "" {
				text += "nodePorts: {addresses: " + row.text + "}\n"
			}
			c, err := ParseConfig([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			var primaries []netip.Addr
			for _, a := range strings.Fields(row.primaries) {
				primaries = append(primaries, netip.MustParseAddr(a))
			}
			got := fronts(c.NodePorts.Addresses, interfacesOf(row.interfaces), primaries, c.PodCIDRs)
			if s := strings.Trim(fmt.Sprint(got), "[]"); s != row.want {
				t.Errorf("got  %s\nwant %s", s, row.want)
			}
		})
	}
}
