package underlay

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses that will go, or that others do not reach, are passing ones.
func TestAddrOf(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cidr  string
		scope int
		flags int
		want  bool
	}{
		{"IPv4", "192.168.254.11/24", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_PERMANENT, false},
		{"IPv4, secondary", "192.168.254.12/24", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_SECONDARY, false},
		{"IPv4, of the link", "169.254.1.1/16", unix.RT_SCOPE_LINK, 0, true},
		{"IPv4, loopback", "127.0.0.1/8", unix.RT_SCOPE_HOST, 0, true},
		{"IPv6", "fd00:254::11/64", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_PERMANENT, false},
		{"IPv6, temporary", "fd00:254::7/64", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_TEMPORARY, true},
		{"IPv6, deprecated", "fd00:254::8/64", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_DEPRECATED, true},
		{"IPv6, tentative", "fd00:254::9/64", unix.RT_SCOPE_UNIVERSE, unix.IFA_F_TENTATIVE, true},
		{"IPv6, of the link", "fe80::1/64", unix.RT_SCOPE_LINK, unix.IFA_F_PERMANENT, true},
	} {
		ip, network, err := net.ParseCIDR(tt.cidr)
		if err != nil {
			t.Fatal(err)
		}
		network.IP = ip
		got := addrOf(netlink.Addr{IPNet: network, Scope: tt.scope, Flags: tt.flags})
		if want := (Addr{netip.MustParsePrefix(tt.cidr), tt.want}); got != want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
	}
}

// Toward tells what the kernel does, and the error of a socket that cannot be had.
func TestToward(t *testing.T) {
	own := netip.MustParseAddr("127.0.0.1")
	if way, err := Toward(unix.Socket, own); err != nil || way.Source != own || way.MTU < 1280 {
		t.Errorf("got %+v, %v", way, err)
	}
	refuse := func(int, int, int) (int, error) { return -1, unix.EAFNOSUPPORT }
	if _, err := Toward(refuse, netip.MustParseAddr("::1")); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("got %v, want %v", err, unix.EAFNOSUPPORT)
	}
}
