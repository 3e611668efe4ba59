package services

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/dns"
)

func TestRecords(t *testing.T) {
	key := object.Key{Namespace: "default", Name: "web"}
	ip := netip.MustParseAddr
	ready := func(a string) object.Endpoint { return object.Endpoint{Addr: ip(a), Ready: true, Serving: true} }
	tcp := func(name string, n uint16) dns.Port { return dns.Port{Name: name, Proto: "tcp", Number: n} }
	compareAddrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

	for _, tt := range []struct {
		name    string
		service object.Service
		slices  []*object.EndpointSlice
		want    dns.Service
		why     string
	}{
		{
			name: "cluster address",
			service: object.Service{Key: key, ClusterIPs: []netip.Addr{ip("10.96.0.20"), ip("fd00:10:96::20")}, Ports: []object.ServicePort{
				{Name: "http", Protocol: object.TCP, Port: 80}, {Name: "dns", Protocol: object.UDP, Port: 53}, {Name: "sig", Protocol: object.SCTP, Port: 3868},
			}},
			slices: []*object.EndpointSlice{{Ports: []object.EndpointPort{{Name: "http", Protocol: object.TCP, Port: 8080}}, Endpoints: []object.Endpoint{ready("10.244.1.5")}}},
			want: dns.Service{
				ClusterIPs: []netip.Addr{ip("10.96.0.20"), ip("fd00:10:96::20")},
				Ports:      []dns.Port{tcp("http", 80), {Name: "dns", Proto: "udp", Number: 53}, {Name: "sig", Proto: "sctp", Number: 3868}},
				Endpoints:  []dns.Endpoints{{Ports: []dns.Port{tcp("http", 8080)}, Each: []dns.Endpoint{{Addr: ip("10.244.1.5")}}}},
			},
			why: "the Service's own ports, and the endpoints' beside them",
		},
		{
			name:    "conditions",
			service: object.Service{Key: key, Headless: true},
			slices: []*object.EndpointSlice{{Endpoints: []object.Endpoint{
				ready("10.244.1.5"),
				{Addr: ip("10.244.1.6"), Serving: true, Terminating: true},
				{Addr: ip("10.244.1.7")},
				{Addr: ip("10.244.1.8"), Ready: true, Terminating: true},
			}}},
			want: dns.Service{Headless: true, Endpoints: []dns.Endpoints{{Each: []dns.Endpoint{{Addr: ip("10.244.1.5")}, {Addr: ip("10.244.1.8")}}}}},
			why:  "ready alone counts: serving while terminating is no reason, and publishNotReadyAddresses makes all ready",
		},
		{
			name:    "slices",
			service: object.Service{Key: key, Headless: true},
			slices: []*object.EndpointSlice{
				{Ports: []object.EndpointPort{{Name: "sql", Protocol: object.TCP, Port: 5432}}, Endpoints: []object.Endpoint{{Addr: ip("10.244.1.5"), Hostname: "db-0", Ready: true}}},
				{Endpoints: []object.Endpoint{ready("::ffff:10.244.1.6"), ready("fd00:10:244:1::6")}},
				{Endpoints: []object.Endpoint{{Addr: ip("10.244.1.9")}}},
			},
			want: dns.Service{Headless: true, Endpoints: []dns.Endpoints{
				{Ports: []dns.Port{tcp("sql", 5432)}, Each: []dns.Endpoint{{Addr: ip("10.244.1.5"), Hostname: "db-0"}}},
				{Each: []dns.Endpoint{{Addr: ip("10.244.1.6")}, {Addr: ip("fd00:10:244:1::6")}}},
			}},
			why: "each slice has ports of its own, or none, and one without ready endpoints says nothing",
		},
		{
			name:    "ExternalName",
			service: object.Service{Key: key, ExternalName: "db.example.com", Ports: []object.ServicePort{{Name: "sql", Protocol: object.TCP, Port: 5432}}},
			slices:  []*object.EndpointSlice{{Endpoints: []object.Endpoint{ready("10.244.1.5")}}},
			want:    dns.Service{ExternalName: "db.example.com"},
			why:     "an alias is nothing else",
		},
		{
			name:    "another proxy's",
			service: object.Service{Key: key, ClusterIPs: []netip.Addr{ip("10.96.0.20")}, NotProxied: true},
			want:    dns.Service{ClusterIPs: []netip.Addr{ip("10.96.0.20")}},
			why:     "its name leads to it nevertheless",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Namespace, tt.want.Name = "default", "web"
			if diff := cmp.Diff(&tt.want, Records(&tt.service, tt.slices), compareAddrs); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.why, diff)
			}
		})
	}
}
