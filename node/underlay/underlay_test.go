package underlay

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// nic is an interface that is up, with addresses written as 192.168.254.11/24; a ? in front of one makes it passing.
func nic(name string, mtu int, addrs ...string) Interface {
	i := Interface{Name: name, MTU: mtu, Up: true, Loopback: name == "lo"}
	for _, a := range addrs {
		text, passing := strings.CutPrefix(a, "?")
		i.Addrs = append(i.Addrs, Addr{netip.MustParsePrefix(text), passing})
	}
	return i
}

func down(i Interface) Interface { i.Up = false; return i }

// ways are the ways that the kernel knows, by destination; default and default6 are for all others.
type ways map[string]Path

func (w ways) toward(dst netip.Addr) (Path, error) {
	for _, key := range []string{dst.String(), map[bool]string{true: "default6", false: "default"}[dst.Is6()]} {
		if p, ok := w[key]; ok {
			return p, nil
		}
	}
	return Path{}, unix.ENETUNREACH
}

func way(source string, mtu int) Path { return Path{netip.MustParseAddr(source), mtu} }

var (
	lo   = nic("lo", 65536, "?127.0.0.1/8", "?::1/128")
	eth0 = nic("eth0", 1500, "192.168.254.11/24", "fd00:254::11/64", "?fe80::1/64")
	eth1 = nic("eth1", 9000, "10.0.0.5/16", "10.0.0.6/16")
	pods = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	// what networks for pods and containers leave on a node
	others = []Interface{
		nic("docker0", 1500, "172.17.0.1/16"), nic("br-0123456789ab", 1500, "172.18.0.1/16"), nic("flannel.1", 1450, "10.244.1.0/32"),
		nic("vxlan.calico", 1450, "10.1.2.0/32"), nic("cni0", 1450, "10.244.1.1/24"), nic("vethab12", 1500, "169.254.1.1/32"),
		nic("mw0", 1450, "10.244.1.0/32"), nic("pods0", 1450, "10.244.1.1/32"),
	}
	node    = append([]Interface{lo, eth0, eth1}, others...)
	gateway = ways{"default": way("192.168.254.11", 1500), "default6": way("fd00:254::11", 1500), "10.0.0.1": way("10.0.0.5", 8000),
		"172.17.0.9": way("172.17.0.1", 1500)}
)

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name       string
		config     Config
		interfaces []Interface
		ways       ways
		want       Choice
	}{
		{"default route", Config{}, node, gateway, choice("eth0", "192.168.254.11", 1500, "it has the default route")},
		{"default route, IPv6", Config{IPv6: true}, node, gateway, choice("eth0", "fd00:254::11", 1500, "it has the default route")},
		{"the kernel's source, not a virtual address", Config{},
			[]Interface{nic("eth0", 1500, "192.168.254.100/32", "192.168.254.11/24")}, gateway,
			choice("eth0", "192.168.254.11", 1500, "it has the default route; it has 2 IPv4 addresses")},
		{"a source that will go", Config{IPv6: true},
			[]Interface{nic("eth0", 1500, "?2001:db8::7777/64", "2001:db8::11/64")}, ways{"default6": way("2001:db8::7777", 1500)},
			choice("eth0", "2001:db8::11", 1500, "it has the default route")},
		{"no default route, one interface", Config{}, append([]Interface{lo, eth0}, others...), nil,
			choice("eth0", "192.168.254.11", 1500, "it is the only interface with a global IPv4 address")},
		{"default route through a pod network", Config{}, append([]Interface{lo, eth0}, others...), ways{"default": way("10.244.1.0", 1450)},
			choice("eth0", "192.168.254.11", 1500, "it is the only interface with a global IPv4 address")},
		{"a router's own bridge", Config{}, []Interface{lo, nic("br-lan", 1500, "192.168.254.11/24")}, gateway,
			choice("br-lan", "192.168.254.11", 1500, "it has the default route")},
		{"name", Config{Interface: "eth1"}, node, gateway, choice("eth1", "10.0.0.5", 9000, "the interface's name was given; it has 2 IPv4 addresses")},
		{"name of a tunnel that was meant", Config{Interface: "docker0"}, node, gateway, choice("docker0", "172.17.0.1", 1500, "the interface's name was given")},
		{"range", Config{CIDR: netip.MustParsePrefix("10.0.0.6/32")}, node, gateway, choice("eth1", "10.0.0.6", 9000, "the first address in 10.0.0.6/32; it has 2 IPv4 addresses")},
		{"range, IPv6", Config{CIDR: netip.MustParsePrefix("fd00:254::/64")}, node, gateway, choice("eth0", "fd00:254::11", 1500, "the first address in fd00:254::/64")},
		{"range that Docker's is in", Config{CIDR: netip.MustParsePrefix("0.0.0.0/0")}, append(others, eth1), gateway,
			choice("eth1", "10.0.0.5", 9000, "the first address in 0.0.0.0/0; it has 2 IPv4 addresses")},
		{"reach", Config{CanReach: netip.MustParseAddr("192.168.254.1")}, node, gateway, choice("eth0", "192.168.254.11", 1500, "it is on the way to 192.168.254.1")},
		{"reach, with the route's MTU", Config{CanReach: netip.MustParseAddr("10.0.0.1")}, node, gateway,
			choice("eth1", "10.0.0.5", 8000, "it is on the way to 10.0.0.1; it has 2 IPv4 addresses")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Choose(tt.config, tt.interfaces, pods, tt.ways.toward)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func choice(name, addr string, mtu int, how string) Choice {
	return Choice{name, netip.MustParseAddr(addr), mtu, how}
}

// Each error is one sentence with the cause, the remedy and what could be chosen.
func TestChooseErrors(t *testing.T) {
	const both = "eth0 (192.168.254.11), eth1 (10.0.0.5, 10.0.0.6)"
	for _, tt := range []struct {
		name       string
		config     Config
		interfaces []Interface
		ways       ways
		want       []string
	}{
		{"no such interface", Config{Interface: "eth9"}, node, gateway, []string{`underlay.interface: no interface of this node is called "eth9"`, both}},
		{"interface is down", Config{Interface: "eth2"}, append([]Interface{down(nic("eth2", 1500, "10.9.0.1/24"))}, node...), gateway,
			[]string{"underlay.interface: eth2 is down", "ip link set eth2 up", both}},
		{"interface without address", Config{Interface: "eth2"}, append([]Interface{nic("eth2", 1500)}, node...), gateway,
			[]string{"eth2 has no global IPv4 address", "give it one", both}},
		{"interface with passing addresses", Config{Interface: "lo"}, node, gateway, []string{"lo has no global IPv4 address", both}},
		{"interface with the other family", Config{Interface: "eth1", IPv6: true}, node, gateway,
			[]string{"eth1 has no global IPv6 address, but 10.0.0.5, 10.0.0.6", "set underlay.ipv6 to false", "eth0 (fd00:254::11)"}},
		{"interface with addresses of pods", Config{Interface: "cni0"}, node, gateway, []string{"cni0 has no global IPv4 address", both}},
		{"empty range", Config{CIDR: netip.MustParsePrefix("10.9.0.0/16")}, node, gateway, []string{"underlay.cidr: no interface has an address in 10.9.0.0/16", both}},
		{"range of an interface that is down", Config{CIDR: netip.MustParsePrefix("10.9.0.0/16")}, append([]Interface{down(nic("eth2", 1500, "10.9.0.1/24"))}, node...), gateway,
			[]string{"underlay.cidr: eth2, which has 10.9.0.1, is down", "ip link set eth2 up", both}},
		{"no route", Config{CanReach: netip.MustParseAddr("10.9.0.1")}, node, nil, []string{"underlay.canReach: no route leads to 10.9.0.1", "add one", both}},
		{"route through Docker", Config{CanReach: netip.MustParseAddr("172.17.0.9")}, node, gateway,
			[]string{"underlay.canReach: the way to 172.17.0.9 starts at 172.17.0.1 on docker0", "choose an address behind", both}},
		{"no default route, several interfaces", Config{}, node, nil, []string{"address: no IPv4 default route", "set address, or underlay.interface to one of " + both}},
		{"IPv6 alone", Config{}, []Interface{lo, nic("eth0", 1500, "fd00:254::11/64")}, nil, []string{"no IPv4 default route", "set underlay.ipv6 to true"}},
		{"nothing", Config{}, []Interface{lo}, nil, []string{"no IPv4 default route", "a global IPv4 address, of which this node has none"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Choose(tt.config, tt.interfaces, pods, tt.ways.toward)
			mustSay(t, err, tt.want)
		})
	}
}

func mustSay(t *testing.T, err error, want []string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got none, want an error with %q", want)
	}
	t.Log(err)
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestByAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"192.168.254.11": "eth0", "fd00:254::11": "eth0", "10.0.0.6": "eth1",
		"127.64.0.3": "lo", // all of 127.0.0.0/8 is
	} {
		got, err := ByAddress(netip.MustParseAddr(addr), node)
		if err != nil || got.Interface != want || got.Address.String() != addr {
			t.Errorf("%s: got %+v, %v, want %s", addr, got, err, want)
		}
	}
	_, err := ByAddress(netip.MustParseAddr("192.168.254.17"), node)
	mustSay(t, err, []string{"192.168.254.17", "set address to one that it has", "eth0 (192.168.254.11)"})
	_, err = ByAddress(netip.MustParseAddr("10.9.0.1"), []Interface{down(nic("eth2", 1500, "10.9.0.1/24"))})
	mustSay(t, err, []string{"eth2, which has 10.9.0.1, is down", "ip link set eth2 up"})
	if _, err = ByAddress(netip.MustParseAddr("::2"), node); err == nil {
		t.Error("of ::1/128 only ::1 is the machine's own")
	}
}

func TestConfigCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		want   string // "" if it is right
	}{
		{"nothing", Config{}, ""},
		{"IPv6 of a name", Config{Interface: "eth0", IPv6: true}, ""},
		{"two ways", Config{Interface: "eth0", CanReach: netip.MustParseAddr("10.0.0.1")}, "leave one of them"},
		{"host bits", Config{CIDR: netip.MustParsePrefix("10.0.0.1/24")}, "cidr: 10.0.0.1/24 is not a range"},
		{"everywhere", Config{CanReach: netip.MustParseAddr("0.0.0.0")}, "canReach: 0.0.0.0 is not an address like"},
		{"IPv4 range, IPv6 wanted", Config{CIDR: netip.MustParsePrefix("10.0.0.0/24"), IPv6: true}, "ipv6: cidr 10.0.0.0/24 is IPv4"},
		{"IPv4 address, IPv6 wanted", Config{CanReach: netip.MustParseAddr("10.0.0.1"), IPv6: true}, "ipv6: canReach 10.0.0.1 is IPv4"},
	} {
		err := tt.config.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if !(Config{CIDR: netip.MustParsePrefix("fd00:254::/64")}).V6() || (Config{Interface: "eth0"}).V6() {
		t.Error("the family follows from cidr")
	}
}
