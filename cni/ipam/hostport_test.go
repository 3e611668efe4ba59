package ipam

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mapping reads "8080/tcp" or "192.0.2.1:8080/tcp", with container port 80.
func mapping(t *testing.T, s string) PortMapping {
	t.Helper()
	at, protocol, _ := strings.Cut(s, "/")
	m := PortMapping{ContainerPort: 80, Protocol: Protocol(protocol)}
	if !strings.Contains(at, ":") {
		at = "0.0.0.0:" + at
	} else {
		m.HostIP = netip.MustParseAddrPort(at).Addr()
	}
	m.HostPort = netip.MustParseAddrPort(at).Port()
	return m
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"80/tcp", "80/tcp", true},
		{"80/tcp", "80/udp", false},
		{"80/tcp", "81/tcp", false},
		{"80/tcp", "127.0.0.1:80/tcp", true},
		{"80/tcp", "[2001:db8::1]:80/tcp", true},
		{"80/tcp", "0.0.0.0:80/tcp", true},
		{"0.0.0.0:80/tcp", "192.0.2.1:80/tcp", true},
		{"0.0.0.0:80/tcp", "[2001:db8::1]:80/tcp", false},
		{"0.0.0.0:80/tcp", "[::]:80/tcp", false},
		{"[::]:80/tcp", "[::1]:80/tcp", true},
		{"127.0.0.1:80/tcp", "192.0.2.1:80/tcp", false}, // test/e2e/network/hostport.go of Kubernetes
		{"192.0.2.1:80/tcp", "192.0.2.1:80/udp", false},
		{"192.0.2.1:80/tcp", "192.0.2.1:80/tcp", true},
	} {
		a, b := mapping(t, tt.a), mapping(t, tt.b)
		if a.overlaps(b) != tt.want || b.overlaps(a) != tt.want {
			t.Errorf("%s and %s: %v and %v, want %v", tt.a, tt.b, a.overlaps(b), b.overlaps(a), tt.want)
		}
		if a.String() != tt.a {
			t.Errorf("%s is printed as %v", tt.a, a)
		}
	}
}

func TestCheckPortMappings(t *testing.T) {
	good := PortMapping{HostPort: 80, ContainerPort: 8080, Protocol: TCP}
	with := func(change func(m *PortMapping)) PortMapping {
		m := good
		change(&m)
		return m
	}
	for _, tt := range []struct {
		name     string
		mappings []PortMapping
		words    string // of the error, "" for none
	}{
		{"none", nil, ""},
		{"one of each protocol", []PortMapping{good, with(func(m *PortMapping) { m.Protocol = UDP })}, ""},
		{"no host port", []PortMapping{with(func(m *PortMapping) { m.HostPort = 0 })}, "from 1 to 65535"},
		{"no container port", []PortMapping{with(func(m *PortMapping) { m.ContainerPort = 0 })}, "from 1 to 65535"},
		{"SCTP", []PortMapping{with(func(m *PortMapping) { m.Protocol = "sctp" })}, "neither tcp nor udp"},
		{"upper case", []PortMapping{with(func(m *PortMapping) { m.Protocol = "TCP" })}, "neither tcp nor udp"},
		{"mapped", []PortMapping{with(func(m *PortMapping) { m.HostIP = addr("::ffff:192.0.2.1") })}, "no address"},
		{"zone", []PortMapping{with(func(m *PortMapping) { m.HostIP = addr("fe80::1%eth0") })}, "no address"},
		{"multicast", []PortMapping{with(func(m *PortMapping) { m.HostIP = addr("224.0.0.1") })}, "no address"},
		{"twice", []PortMapping{good, with(func(m *PortMapping) { m.HostIP = addr("192.0.2.1"); m.ContainerPort = 9 })}, "twice, for container ports 8080 and 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckPortMappings(tt.mappings)
			if (err == nil) != (tt.words == "") || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
		})
	}
}

// A host port is one lease's until that is released, over a restart too; what is refused takes nothing.
func TestHostPorts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path, cidr4)
	ask := func(id, port string) (Lease, error) {
		l := lease(id)
		l.PortMappings = []PortMapping{mapping(t, port)}
		return s.Reserve(l, nil)
	}
	first, err := ask("first", "8080/tcp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask("second", "8080/udp"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, cidr4)
	if got, _ := s.Get(first.Key); !cmp.Equal(got.PortMappings, first.PortMappings, cmp.Comparer(equalAddrs)) {
		t.Errorf("read %v, wrote %v", got.PortMappings, first.PortMappings)
	}
	for port, words := range map[string]string{
		"192.0.2.1:8080/tcp": "belongs to pod default/pod-first (8080/tcp)", "[2001:db8::1]:80/tcp": "needs a pod address of its family",
	} {
		if _, err := ask("third", port); !errors.Is(err, ErrHostPort) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", port, err, words)
		}
	}
	again := lease("again")
	again.Pod, again.PortMappings = first.Pod, first.PortMappings
	if _, err := s.Reserve(again, nil); err != nil {
		t.Errorf("the same pod, in another sandbox: %v", err)
	}
	if err := s.Release(again.Key); err != nil {
		t.Fatal(err)
	}
	if len(s.All()) != 2 {
		t.Errorf("leases %v", s.All())
	}
	if err := s.Release(first.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("third", "192.0.2.1:8080/tcp"); err != nil {
		t.Error(err)
	}
}

func TestSamePortMappings(t *testing.T) {
	a, b := mapping(t, "80/tcp"), mapping(t, "127.0.0.1:80/udp")
	for _, tt := range []struct {
		name string
		x, y []PortMapping
		want bool
	}{
		{"none", nil, nil, true},
		{"another order", []PortMapping{a, b}, []PortMapping{b, a}, true},
		{"fewer", []PortMapping{a, b}, []PortMapping{a}, false},
		{"others", []PortMapping{a}, []PortMapping{b}, false},
	} {
		if got := SamePortMappings(tt.x, tt.y); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
