package hostport

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/stack/packet"
)

func addr(s string) (a netip.Addr) {
	if s != "" {
		a = netip.MustParseAddr(s)
	}
	return a
}

func lease(pod string, state ipam.State, addrs []string, mappings ...ipam.PortMapping) ipam.Lease {
	l := ipam.Lease{Key: ipam.Key{ContainerID: "c-" + pod, IfName: "eth0"}, State: state, PortMappings: mappings}
	if pod != "" {
		l.Pod = ipam.Pod{Namespace: "default", Name: pod}
	}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, addr(a))
	}
	return l
}

func since(seconds int64, l ipam.Lease) ipam.Lease {
	l.Since = time.Unix(seconds, 0)
	return l
}

func mapping(hostIP string, hostPort, containerPort uint16, p ipam.Protocol) ipam.PortMapping {
	return ipam.PortMapping{HostIP: addr(hostIP), HostPort: hostPort, ContainerPort: containerPort, Protocol: p}
}

// Each row of want reads "frontend/protocol → backend".
func TestServices(t *testing.T) {
	v4, v6 := "10.244.1.7", "fd00:10:244:1::7"
	for _, tt := range []struct {
		name   string
		leases []ipam.Lease
		want   map[string]map[string]string
	}{
		{"no host port", []ipam.Lease{lease("web", ipam.Attached, []string{v4})}, map[string]map[string]string{}},
		{"pending", []ipam.Lease{lease("web", ipam.Pending, []string{v4}, mapping("", 8080, 80, ipam.TCP))}, map[string]map[string]string{}},
		{"all addresses, one family", []ipam.Lease{lease("web", ipam.Attached, []string{v4}, mapping("", 8080, 80, ipam.TCP))},
			map[string]map[string]string{"hostport/default/web": {"0.0.0.0:8080/tcp": "10.244.1.7:80"}}},
		{"all addresses, two families", []ipam.Lease{lease("web", ipam.Attached, []string{v4, v6}, mapping("", 53, 5353, ipam.UDP))},
			map[string]map[string]string{"hostport/default/web": {
				"0.0.0.0:53/udp": "10.244.1.7:5353", "[::]:53/udp": "[fd00:10:244:1::7]:5353",
			}}},
		{"those of one family", []ipam.Lease{lease("web", ipam.Attached, []string{v4, v6}, mapping("::", 8080, 80, ipam.TCP))},
			map[string]map[string]string{"hostport/default/web": {"[::]:8080/tcp": "[fd00:10:244:1::7]:80"}}},
		{"Kubernetes' conformance test", []ipam.Lease{
			lease("pod1", ipam.Attached, []string{"10.244.1.1"}, mapping("127.0.0.1", 54323, 8080, ipam.TCP)),
			lease("pod2", ipam.Attached, []string{"10.244.1.2"}, mapping("192.0.2.1", 54323, 8080, ipam.TCP)),
			lease("pod3", ipam.Attached, []string{"10.244.1.3"}, mapping("192.0.2.1", 54323, 8080, ipam.UDP)),
		}, map[string]map[string]string{
			"hostport/default/pod1": {"127.0.0.1:54323/tcp": "10.244.1.1:8080"},
			"hostport/default/pod2": {"192.0.2.1:54323/tcp": "10.244.1.2:8080"},
			"hostport/default/pod3": {"192.0.2.1:54323/udp": "10.244.1.3:8080"},
		}},
		{"a container of no pod", []ipam.Lease{lease("", ipam.Attached, []string{v4}, mapping("", 1, 2, ipam.TCP))},
			map[string]map[string]string{"hostport/c-/eth0": {"0.0.0.0:1/tcp": "10.244.1.7:2"}}},
		{"two sandboxes", []ipam.Lease{
			since(2, lease("web", ipam.Attached, []string{v4}, mapping("", 1, 2, ipam.TCP))), since(1, lease("web", ipam.Attached, []string{"10.244.1.8"}, mapping("", 1, 2, ipam.TCP))),
		}, map[string]map[string]string{"hostport/default/web": {"0.0.0.0:1/tcp": "10.244.1.7:2"}}},
		{"two interfaces", []ipam.Lease{
			lease("web", ipam.Attached, []string{v4}, mapping("", 1, 2, ipam.TCP)), lease("web", ipam.Attached, []string{"10.244.1.8"}, mapping("", 3, 4, ipam.TCP)),
		}, map[string]map[string]string{"hostport/default/web": {"0.0.0.0:1/tcp": "10.244.1.7:2", "0.0.0.0:3/tcp": "10.244.1.8:4"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]map[string]string{}
			ids := map[uint64]bool{}
			for name, s := range Services(tt.leases) {
				got[name] = map[string]string{}
				for at, p := range s.External {
					b := p.External.Backends[0]
					got[name][netip.AddrPortFrom(at.Addr, at.Port).String()+"/"+at.Proto.String()] = b.AddrPort().String()
					if !b.Local || !p.Serves(b.Addr, b.Port) || !cmp.Equal(p.Inside.Backends, p.External.Backends, cmp.Comparer(func(a, b packet.AddrKey) bool { return a == b })) {
						t.Errorf("%s: a backend that is local and serves, to clients here too, was wanted: %+v", p.Name, p)
					}
					if ids[p.ID] {
						t.Errorf("%s has the ID of another port", p.Name)
					}
					ids[p.ID] = true
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
