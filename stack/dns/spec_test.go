package dns_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

// A question and what must come back, as the Kubernetes DNS specification 1.1.0 and its implementers' experience want it.
type question struct {
	name  string // of the test
	ask   string // "NAME TYPE"
	rcode string // default NOERROR
	want  []string
	extra []string // in the additional section
	why   string
}

// soa stands for the zone's SOA record in the authority section, which every answer without records has.
const soa = "SOA"

func TestSpecification(t *testing.T) {
	s := newServer(t, clusterZone(t))
	for _, q := range []question{
		{name: "service", ask: "web.default.svc.cluster.local. A", want: []string{"web.default.svc.cluster.local. 5 IN A 10.96.0.20"}, why: "§2.3.1"},
		{name: "service, IPv6", ask: "dual.default.svc.cluster.local. AAAA", want: []string{"dual.default.svc.cluster.local. 5 IN AAAA fd00:10:96::21"}, why: "§2.3.1 for IPv6"},
		{name: "case", ask: "WeB.dEfault.SVC.cluster.Local. A", want: []string{"WeB.dEfault.SVC.cluster.Local. 5 IN A 10.96.0.20"}, why: "§2.1: case makes no difference, and the client's is kept (draft-vixie-dnsext-dns0x20)"},
		{name: "other family", ask: "web.default.svc.cluster.local. AAAA", why: "the name exists: NODATA, else musl gives the A up too"},
		{name: "other type", ask: "web.default.svc.cluster.local. MX", why: "NODATA"},
		{name: "no such service", ask: "wob.default.svc.cluster.local. A", rcode: "NXDOMAIN", why: "search goes on at once"},
		{name: "no such namespace", ask: "web.nowhere.svc.cluster.local. A", rcode: "NXDOMAIN", why: "search goes on at once"},
		{name: "search-path miss", ask: "www.example.com.default.svc.cluster.local. A", rcode: "NXDOMAIN", why: "ndots:5 asks this for every external name"},
		{name: "search-path miss, svc", ask: "www.example.com.svc.cluster.local. A", rcode: "NXDOMAIN", why: "com is no namespace"},
		{name: "search-path miss, zone", ask: "www.example.com.cluster.local. AAAA", rcode: "NXDOMAIN", why: "com is no part of the schema"},
		{name: "too many labels", ask: "a.b.c.web.default.svc.cluster.local. A", rcode: "NXDOMAIN", why: "the schema has no such names"},
		{name: "namespace", ask: "default.svc.cluster.local. A", why: "names below it exist: NODATA (RFC 8020)"},
		{name: "namespace without services", ask: "empty.svc.cluster.local. A", why: "the namespace exists"},
		{name: "no namespace", ask: "nowhere.svc.cluster.local. A", rcode: "NXDOMAIN", why: "it does not exist"},
		{name: "svc", ask: "svc.cluster.local. A", why: "names below it exist: NODATA"},
		{name: "zone", ask: "cluster.local. A", why: "the zone exists"},
		{name: "zone, SOA", ask: "cluster.local. SOA", want: []string{soa}, why: "RFC 1035"},
		{name: "zone, NS", ask: "cluster.local. NS", want: []string{"cluster.local. 5 IN NS ns.dns.cluster.local."},
			extra: []string{"ns.dns.cluster.local. 5 IN A 10.96.0.10", "ns.dns.cluster.local. 5 IN AAAA fd00:10:96::a"}, why: "RFC 1035"},
		{name: "name server", ask: "ns.dns.cluster.local. A", want: []string{"ns.dns.cluster.local. 5 IN A 10.96.0.10"}, why: "what NS leads to has an address"},
		{name: "above the name server", ask: "dns.cluster.local. A", why: "names below it exist"},
		{name: "version", ask: "dns-version.cluster.local. TXT", want: []string{`dns-version.cluster.local. 5 IN TXT "1.1.0"`}, why: "§2.2"},
		{name: "version, other type", ask: "dns-version.cluster.local. A", why: "NODATA"},
		{name: "below version", ask: "x.dns-version.cluster.local. TXT", rcode: "NXDOMAIN", why: "no such name"},

		{name: "port", ask: "_http._tcp.web.default.svc.cluster.local. SRV",
			want:  []string{"_http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local."},
			extra: []string{"web.default.svc.cluster.local. 5 IN A 10.96.0.20"}, why: "§2.3.2"},
		{name: "port of both families", ask: "_dns._udp.dual.default.svc.cluster.local. SRV",
			want:  []string{"_dns._udp.dual.default.svc.cluster.local. 5 IN SRV 0 100 53 dual.default.svc.cluster.local."},
			extra: []string{"dual.default.svc.cluster.local. 5 IN A 10.96.0.21", "dual.default.svc.cluster.local. 5 IN AAAA fd00:10:96::21"},
			why:   "the target's addresses come along"},
		{name: "port, other protocol", ask: "_http._udp.web.default.svc.cluster.local. SRV", rcode: "NXDOMAIN", why: "no such port"},
		{name: "port, other name", ask: "_https._tcp.web.default.svc.cluster.local. SRV", rcode: "NXDOMAIN", why: "no such port"},
		{name: "port, other type", ask: "_http._tcp.web.default.svc.cluster.local. A", why: "NODATA"},
		{name: "protocol", ask: "_tcp.web.default.svc.cluster.local. SRV", why: "names below it exist: NODATA"},
		{name: "protocol of no port", ask: "_sctp.web.default.svc.cluster.local. SRV", rcode: "NXDOMAIN", why: "no names below it"},
		{name: "unnamed port", ask: "_._tcp.unnamed.default.svc.cluster.local. SRV", rcode: "NXDOMAIN", why: "§2.3.2: unnamed ports have no SRV record"},
		{name: "all ports", ask: "unnamed.default.svc.cluster.local. SRV",
			want:  []string{"unnamed.default.svc.cluster.local. 5 IN SRV 0 100 8080 unnamed.default.svc.cluster.local."},
			extra: []string{"unnamed.default.svc.cluster.local. 5 IN A 10.96.0.23"},
			why:   "an extension (§3) that CoreDNS has, and clients that look for their peers use"},

		{name: "headless", ask: "db.data.svc.cluster.local. A",
			want: []string{"db.data.svc.cluster.local. 5 IN A 10.244.1.5", "db.data.svc.cluster.local. 5 IN A 10.244.2.6", "db.data.svc.cluster.local. 5 IN A 10.244.2.7"},
			why:  "§2.4.1: each ready endpoint"},
		{name: "headless, other family", ask: "db.data.svc.cluster.local. AAAA", why: "NODATA"},
		{name: "endpoint by host name", ask: "db-0.db.data.svc.cluster.local. A", want: []string{"db-0.db.data.svc.cluster.local. 5 IN A 10.244.1.5"}, why: "§2.4.1"},
		{name: "endpoint by address", ask: "10-244-2-7.db.data.svc.cluster.local. A", want: []string{"10-244-2-7.db.data.svc.cluster.local. 5 IN A 10.244.2.7"}, why: "§2.1: an identifier of our choice, CoreDNS's"},
		{name: "endpoint with host name by address", ask: "10-244-1-5.db.data.svc.cluster.local. A", rcode: "NXDOMAIN", why: "§2.1: its name is its host name"},
		{name: "no such endpoint", ask: "db-7.db.data.svc.cluster.local. A", rcode: "NXDOMAIN", why: "a name of a pod that is not ready"},
		{name: "endpoint, other family", ask: "db-0.db.data.svc.cluster.local. AAAA", why: "NODATA"},
		{name: "host name of several endpoints", ask: "twin.twins.data.svc.cluster.local. A",
			want: []string{"twin.twins.data.svc.cluster.local. 5 IN A 10.244.1.8", "twin.twins.data.svc.cluster.local. 5 IN A 10.244.1.9"}, why: "§2.4.1: one A for each"},
		{name: "SRV of a shared host name", ask: "_x._tcp.twins.data.svc.cluster.local. SRV",
			want:  []string{"_x._tcp.twins.data.svc.cluster.local. 5 IN SRV 0 100 1 twin.twins.data.svc.cluster.local."},
			extra: []string{"twin.twins.data.svc.cluster.local. 5 IN A 10.244.1.8", "twin.twins.data.svc.cluster.local. 5 IN A 10.244.1.9"}, why: "a set of records has none twice (RFC 2181, §5)"},
		{name: "headless SRV", ask: "_sql._tcp.db.data.svc.cluster.local. SRV",
			want: []string{
				"_sql._tcp.db.data.svc.cluster.local. 5 IN SRV 0 100 5432 10-244-2-7.db.data.svc.cluster.local.",
				"_sql._tcp.db.data.svc.cluster.local. 5 IN SRV 0 100 5432 db-0.db.data.svc.cluster.local.",
				"_sql._tcp.db.data.svc.cluster.local. 5 IN SRV 0 100 5432 db-1.db.data.svc.cluster.local.",
			},
			extra: []string{"10-244-2-7.db.data.svc.cluster.local. 5 IN A 10.244.2.7", "db-0.db.data.svc.cluster.local. 5 IN A 10.244.1.5", "db-1.db.data.svc.cluster.local. 5 IN A 10.244.2.6"},
			why:   "§2.4.2: N × M, by the endpoints' names"},
		{name: "headless, one name in both families", ask: "_peer._tcp.ring.data.svc.cluster.local. SRV",
			want:  []string{"_peer._tcp.ring.data.svc.cluster.local. 5 IN SRV 0 100 7000 ring-0.ring.data.svc.cluster.local."},
			extra: []string{"ring-0.ring.data.svc.cluster.local. 5 IN A 10.244.1.11", "ring-0.ring.data.svc.cluster.local. 5 IN AAAA fd00:10:244:1::11"}, why: "two slices, one name"},
		{name: "endpoint by IPv6 address", ask: "fd00-10-244-1--12.ring.data.svc.cluster.local. AAAA", want: []string{"fd00-10-244-1--12.ring.data.svc.cluster.local. 5 IN AAAA fd00:10:244:1::12"}, why: "§2.1"},
		{name: "headless without ports", ask: "portless.data.svc.cluster.local. A", want: []string{"portless.data.svc.cluster.local. 5 IN A 10.244.1.13"}, why: "slices without ports have addresses"},
		{name: "headless without ports, SRV", ask: "portless.data.svc.cluster.local. SRV", why: "NODATA"},
		{name: "headless without endpoints", ask: "lonely.data.svc.cluster.local. A", rcode: "NXDOMAIN", why: "§2.4.1"},
		{name: "two slices have an endpoint", ask: "moved.data.svc.cluster.local. A", want: []string{"moved.data.svc.cluster.local. 5 IN A 10.244.1.14"}, why: "a controller moves it from one to the other"},
		{name: "two slices have an endpoint, SRV", ask: "_x._tcp.moved.data.svc.cluster.local. SRV",
			want:  []string{"_x._tcp.moved.data.svc.cluster.local. 5 IN SRV 0 100 1 10-244-1-14.moved.data.svc.cluster.local."},
			extra: []string{"10-244-1-14.moved.data.svc.cluster.local. 5 IN A 10.244.1.14"}, why: "one endpoint, one record"},
		{name: "endpoint of a service with address", ask: "10-244-1-20.web.default.svc.cluster.local. A", want: []string{"10-244-1-20.web.default.svc.cluster.local. 5 IN A 10.244.1.20"}, why: "an extension that its PTR leads to"},

		{name: "PTR of a service", ask: "20.0.96.10.in-addr.arpa. PTR", want: []string{"20.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."}, why: "§2.3.3"},
		{name: "PTR of a service, IPv6", ask: reverse("fd00:10:96::21") + " PTR", want: []string{reverse("fd00:10:96::21") + " 5 IN PTR dual.default.svc.cluster.local."}, why: "nibbles (RFC 3596)"},
		{name: "PTR in capitals", ask: strings.ToUpper(reverse("fd00:10:96::21")) + " PTR", want: []string{strings.ToUpper(reverse("fd00:10:96::21")) + " 5 IN PTR dual.default.svc.cluster.local."}, why: "§2.1"},
		{name: "PTR of an endpoint", ask: "5.1.244.10.in-addr.arpa. PTR", want: []string{"5.1.244.10.in-addr.arpa. 5 IN PTR db-0.db.data.svc.cluster.local."}, why: "§2.4.3"},
		{name: "PTR of an endpoint without host name", ask: "7.2.244.10.in-addr.arpa. PTR", want: []string{"7.2.244.10.in-addr.arpa. 5 IN PTR 10-244-2-7.db.data.svc.cluster.local."}, why: "§2.4.3"},
		{name: "PTR of an endpoint of two services", ask: "20.1.244.10.in-addr.arpa. PTR",
			want: []string{"20.1.244.10.in-addr.arpa. 5 IN PTR 10-244-1-20.unnamed.default.svc.cluster.local.", "20.1.244.10.in-addr.arpa. 5 IN PTR 10-244-1-20.web.default.svc.cluster.local."}, why: "all names"},
		{name: "PTR of an endpoint that is a ClusterIP too", ask: "22.0.96.10.in-addr.arpa. PTR", want: []string{"22.0.96.10.in-addr.arpa. 5 IN PTR vip.default.svc.cluster.local."}, why: "the ClusterIP comes first"},
		{name: "PTR of a pod without service", ask: "99.1.244.10.in-addr.arpa. PTR", rcode: "NXDOMAIN", why: "the cluster's range is not asked about upstream"},
		{name: "PTR of no pod, IPv6", ask: reverse("fd00:10:244:1::99") + " PTR", rcode: "NXDOMAIN", why: "the cluster's range is not asked about upstream"},
		{name: "PTR, other type", ask: "20.0.96.10.in-addr.arpa. A", why: "NODATA"},

		{name: "ExternalName", ask: "out.default.svc.cluster.local. CNAME", want: []string{"out.default.svc.cluster.local. 5 IN CNAME foo.example.com."}, why: "§2.5"},
		{name: "ExternalName within the zone", ask: "inner.default.svc.cluster.local. A",
			want: []string{"inner.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.", "web.default.svc.cluster.local. 5 IN A 10.96.0.20"}, why: "followed in the same answer"},
		{name: "ExternalName of an ExternalName", ask: "outer.default.svc.cluster.local. A",
			want: []string{"inner.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.", "outer.default.svc.cluster.local. 5 IN CNAME inner.default.svc.cluster.local.", "web.default.svc.cluster.local. 5 IN A 10.96.0.20"}, why: "all of the chain"},
		{name: "ExternalName, NODATA", ask: "inner.default.svc.cluster.local. AAAA", want: []string{"inner.default.svc.cluster.local. 5 IN CNAME web.default.svc.cluster.local.", soa}, why: "the alias and why it ends (RFC 2308)"},
		{name: "ExternalName of nothing", ask: "dangling.default.svc.cluster.local. A", rcode: "NXDOMAIN", want: []string{"dangling.default.svc.cluster.local. 5 IN CNAME gone.default.svc.cluster.local.", soa}, why: "the last name counts (RFC 6604)"},
		{name: "ExternalName of itself", ask: "self.default.svc.cluster.local. A", rcode: "SERVFAIL", want: []string{}, why: "endless"},
		{name: "ExternalName, SRV", ask: "_http._tcp.out.default.svc.cluster.local. SRV", rcode: "NXDOMAIN", why: "rule 49: none for ExternalName"},

		{name: "pod", ask: "10-244-1-99.default.pod.cluster.local. A", want: []string{"10-244-1-99.default.pod.cluster.local. 5 IN A 10.244.1.99"}, why: "§2.6: any address"},
		{name: "pod, IPv6", ask: "fd00-10-244-1--63.default.pod.cluster.local. AAAA", want: []string{"fd00-10-244-1--63.default.pod.cluster.local. 5 IN AAAA fd00:10:244:1::63"}, why: "§2.6"},
		{name: "pod, other family", ask: "10-244-1-99.default.pod.cluster.local. AAAA", why: "NODATA"},
		{name: "pod of no namespace", ask: "10-244-1-99.nowhere.pod.cluster.local. A", rcode: "NXDOMAIN", why: "the namespace must exist"},
		{name: "pod, no address", ask: "10-244-1.default.pod.cluster.local. A", rcode: "NXDOMAIN", why: "no such name"},
		{name: "pod, namespace", ask: "default.pod.cluster.local. A", why: "names below it exist"},
		{name: "pod, zone", ask: "pod.cluster.local. A", why: "names below it exist"},

		{name: "ANY", ask: "web.default.svc.cluster.local. ANY", want: []string{`web.default.svc.cluster.local. 5 IN HINFO "RFC8482" ""`}, why: "RFC 8482: no amplifier"},
		{name: "digit first", ask: "3dviewer.default.svc.cluster.local. A", want: []string{"3dviewer.default.svc.cluster.local. 5 IN A 10.96.0.33"}, why: "RelaxedServiceNameValidation"},
	} {
		t.Run(q.name, func(t *testing.T) { checkAnswer(t, s, q) })
	}
}

// checkAnswer asks over the real codec and compares.
func checkAnswer(t *testing.T, s *dns.Server, q question) {
	t.Helper()
	got := exchange(t, s, newQuery(q.ask))
	if want := wire.StringToRcode[orDefault(q.rcode, "NOERROR")]; got.Rcode != want {
		t.Errorf("%s: got %s, want %s: %s", q.ask, wire.RcodeToString[got.Rcode], orDefault(q.rcode, "NOERROR"), q.why)
	}
	want := q.want
	if len(want) == 0 && q.rcode != "SERVFAIL" {
		want = []string{soa}
	}
	if diff := cmp.Diff(want, records(slices.Concat(got.Answer, got.Ns)), emptyIsNil); diff != "" {
		t.Errorf("%s: %s (-want +got):\n%s", q.ask, q.why, diff)
	}
	if diff := cmp.Diff(q.extra, records(got.Extra), emptyIsNil); diff != "" {
		t.Errorf("%s, additional: %s (-want +got):\n%s", q.ask, q.why, diff)
	}
	if aa := q.rcode != "SERVFAIL"; got.Authoritative != aa {
		t.Errorf("%s: authoritative is %v, want %v", q.ask, got.Authoritative, aa)
	}
}

var emptyIsNil = cmp.Transformer("empty", func(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	return s
})

// records writes records as in zone files, sorted; an SOA record by its name alone.
func records(all []wire.RR) (lines []string) {
	for _, rr := range all {
		if _, ok := rr.(*wire.SOA); ok {
			lines = append(lines, soa)
			continue
		}
		lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	slices.SortFunc(lines, func(a, b string) int {
		if a == soa || b == soa {
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	})
	return lines
}

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// newQuery makes a query of "NAME TYPE".
func newQuery(ask string) *wire.Msg {
	name, qtype, _ := strings.Cut(ask, " ")
	m := new(wire.Msg)
	m.SetQuestion(name, wire.StringToType[qtype])
	m.Id = 4711
	return m
}

// exchange asks as a worker does, and checks what holds for every answer.
func exchange(t *testing.T, s *dns.Server, m *wire.Msg) *wire.Msg {
	t.Helper()
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(query)
	out := make([]byte, dns.MaxUDP)
	n, ok := s.Answer(out, query, client)
	if !ok {
		t.Fatalf("%v: no answer at hand", m.Question)
	}
	if !slices.Equal(query, before) {
		t.Errorf("%v: the query was changed", m.Question)
	}
	got := new(wire.Msg)
	if err := got.Unpack(out[:n]); err != nil {
		t.Fatalf("%v: answer %x: %v", m.Question, out[:n], err)
	}
	if got.Id != m.Id || !got.Response || !got.RecursionAvailable || got.RecursionDesired != m.RecursionDesired {
		t.Errorf("%v: header %+v", m.Question, got.MsgHdr)
	}
	if diff := cmp.Diff(m.Question, got.Question); diff != "" {
		t.Errorf("question (-want +got):\n%s", diff)
	}
	return got
}

var client = netip.MustParseAddr("10.244.1.2")

func reverse(addr string) string {
	name, err := wire.ReverseAddr(addr)
	if err != nil {
		panic(err)
	}
	return name
}

func newServer(t *testing.T, z *dns.Zone) *dns.Server {
	t.Helper()
	s, err := newEmptyServer()
	if err != nil {
		t.Fatal(err)
	}
	if z != nil {
		s.SetZone(z)
	}
	return s
}

// newEmptyServer makes a server that knows nothing of the cluster yet.
func newEmptyServer() (*dns.Server, error) {
	z, err := dns.NewZone(zoneConfig)
	if err != nil {
		return nil, err
	}
	return dns.New(dns.Config{Zone: z})
}

var zoneConfig = dns.ZoneConfig{
	Addresses: addrs("10.96.0.10", "fd00:10:96::a"),
	Reverse: []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16"),
		netip.MustParsePrefix("fd00:10:96::/112"), netip.MustParsePrefix("fd00:10:244::/48"),
	},
}

func addrs(all ...string) (parsed []netip.Addr) {
	for _, a := range all {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

// clusterZone is the zone of the tables of tests.
func clusterZone(t *testing.T) *dns.Zone {
	t.Helper()
	z, err := dns.NewZone(zoneConfig)
	if err != nil {
		t.Fatal(err)
	}
	z, err = z.With(dns.Changes{
		Services:   byName(clusterServices),
		Namespaces: map[string]bool{"default": true, "data": true, "empty": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func byName(all []*dns.Service) map[string]*dns.Service {
	m := map[string]*dns.Service{}
	for _, s := range all {
		m[s.Namespace+"/"+s.Name] = s
	}
	return m
}

func tcp(name string, number uint16) dns.Port {
	return dns.Port{Name: name, Proto: "tcp", Number: number}
}

// at makes endpoints of "ADDRESS" or "HOSTNAME=ADDRESS".
func at(ports []dns.Port, all ...string) dns.Endpoints {
	e := dns.Endpoints{Ports: ports}
	for _, s := range all {
		host, addr, ok := strings.Cut(s, "=")
		if !ok {
			host, addr = "", s
		}
		e.Each = append(e.Each, dns.Endpoint{Addr: netip.MustParseAddr(addr), Hostname: host})
	}
	return e
}

func ports(all ...dns.Port) []dns.Port { return all }

var clusterServices = []*dns.Service{
	{Namespace: "default", Name: "web", ClusterIPs: addrs("10.96.0.20"), Ports: ports(tcp("http", 80)),
		Endpoints: []dns.Endpoints{at(ports(tcp("http", 8080)), "10.244.1.20", "10.244.2.20")}},
	{Namespace: "default", Name: "dual", ClusterIPs: addrs("10.96.0.21", "fd00:10:96::21"), Ports: ports(dns.Port{Name: "dns", Proto: "udp", Number: 53})},
	{Namespace: "default", Name: "vip", ClusterIPs: addrs("10.96.0.22"), Ports: ports(tcp("", 80))},
	{Namespace: "default", Name: "unnamed", ClusterIPs: addrs("10.96.0.23"), Ports: ports(tcp("", 8080)),
		Endpoints: []dns.Endpoints{at(ports(tcp("", 8080)), "10.244.1.20", "10.96.0.22")}},
	{Namespace: "default", Name: "3dviewer", ClusterIPs: addrs("10.96.0.33")},
	{Namespace: "data", Name: "db", Headless: true, Endpoints: []dns.Endpoints{
		at(ports(tcp("sql", 5432)), "db-0=10.244.1.5", "db-1=10.244.2.6", "10.244.2.7"),
	}},
	{Namespace: "data", Name: "twins", Headless: true, Endpoints: []dns.Endpoints{at(ports(tcp("x", 1)), "twin=10.244.1.8", "twin=10.244.1.9")}},
	{Namespace: "data", Name: "ring", Headless: true, Endpoints: []dns.Endpoints{
		at(ports(tcp("peer", 7000)), "ring-0=10.244.1.11"), at(ports(tcp("peer", 7000)), "ring-0=fd00:10:244:1::11"), at(nil, "fd00:10:244:1::12"),
	}},
	{Namespace: "data", Name: "portless", Headless: true, Endpoints: []dns.Endpoints{at(nil, "10.244.1.13")}},
	{Namespace: "data", Name: "lonely", Headless: true},
	{Namespace: "data", Name: "moved", Headless: true, Endpoints: []dns.Endpoints{at(ports(tcp("x", 1)), "10.244.1.14"), at(ports(tcp("x", 1)), "10.244.1.14")}},
	{Namespace: "default", Name: "out", ExternalName: "foo.example.com"},
	{Namespace: "default", Name: "inner", ExternalName: "web.default.svc.cluster.local."},
	{Namespace: "default", Name: "outer", ExternalName: "inner.default.svc.cluster.local"},
	{Namespace: "default", Name: "dangling", ExternalName: "gone.default.svc.cluster.local"},
	{Namespace: "default", Name: "self", ExternalName: "self.default.svc.cluster.local"},
}
