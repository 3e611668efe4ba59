package dns_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

// reference is the zone as a list of records, made anew from all Services: slow, and as the specification says it.
type reference struct {
	records map[string][]string // by lower-case name: "TYPE DATA"
	exists  map[string]bool     // names that have records or stand above some
}

const zone = "cluster.local."

func newReference(services map[string]*dns.Service, namespaces map[string]bool) *reference {
	r := &reference{map[string][]string{}, map[string]bool{}}
	r.add("ns.dns."+zone, "A 10.96.0.10")
	r.add("ns.dns."+zone, "AAAA fd00:10:96::a")
	r.add("dns-version."+zone, `TXT "1.1.0"`)
	r.name("pod." + zone)
	r.name("svc." + zone)
	for ns, is := range namespaces {
		if is {
			r.name(ns + ".svc." + zone)
			r.name(ns + ".pod." + zone)
		}
	}
	var pointers []string // of endpoints, which give way to those of ClusterIPs
	for _, s := range services {
		name := s.Name + "." + s.Namespace + ".svc." + zone
		switch {
		case s.ExternalName != "":
			r.add(name, "CNAME "+s.ExternalName)
		case s.Headless:
			pointers = append(pointers, r.endpoints(s, name)...)
		default:
			for _, a := range s.ClusterIPs {
				r.add(name, addressRecord(a))
				r.add(reverse(a.String()), "PTR "+name)
			}
			for _, p := range s.Ports {
				r.port(name, p, name)
			}
			pointers = append(pointers, r.endpoints(s, name)...)
		}
	}
	for _, p := range pointers {
		at, target, _ := strings.Cut(p, " ")
		if clusterIP := r.records[at]; len(clusterIP) == 0 || !strings.HasPrefix(clusterIP[0], "PTR ") || isEndpoint(clusterIP[0], pointers, at) {
			r.add(at, "PTR "+target)
		}
	}
	return r
}

func isEndpoint(record string, pointers []string, at string) bool {
	return slices.Contains(pointers, at+" "+strings.TrimPrefix(record, "PTR "))
}

// endpoints adds the endpoints of a Service, and returns "REVERSE NAME" of each.
func (r *reference) endpoints(s *dns.Service, name string) (pointers []string) {
	for _, set := range s.Endpoints {
		for _, e := range set.Each {
			host := e.Hostname
			if host == "" {
				host = strings.NewReplacer(".", "-", ":", "-").Replace(e.Addr.String())
			}
			r.add(host+"."+name, addressRecord(e.Addr))
			pointers = append(pointers, reverse(e.Addr.String())+" "+host+"."+name)
			if s.Headless {
				r.add(name, addressRecord(e.Addr))
				for _, p := range set.Ports {
					r.port(name, p, host+"."+name)
				}
			}
		}
	}
	return pointers
}

func (r *reference) port(name string, p dns.Port, target string) {
	record := fmt.Sprintf("SRV 0 100 %d %s", p.Number, target)
	r.add(name, record)
	if p.Name != "" {
		r.add("_"+p.Name+"._"+p.Proto+"."+name, record)
	}
}

func addressRecord(a netip.Addr) string {
	if a.Is4() {
		return "A " + a.String()
	}
	return "AAAA " + a.String()
}

func (r *reference) add(name, record string) {
	r.name(name)
	if !slices.Contains(r.records[name], record) {
		r.records[name] = append(r.records[name], record)
	}
}

// name makes a name exist, and those above it within the zone.
func (r *reference) name(name string) {
	for strings.HasSuffix(name, zone) {
		r.exists[name] = true
		_, name, _ = strings.Cut(name, ".")
	}
}

// answer returns what a question gets: response code and records. ok is false if it is not the cluster's to answer.
func (r *reference) answer(name, qtype string) (rcode string, answer []string, ok bool) {
	owner := name
	for range 20 {
		name = strings.ToLower(name)
		if alias := r.records[name]; len(alias) == 1 && strings.HasPrefix(alias[0], "CNAME ") {
			answer = append(answer, owner+" 5 IN "+alias[0])
			if qtype == "CNAME" {
				return "NOERROR", answer, true
			}
			owner = strings.TrimPrefix(alias[0], "CNAME ")
			if name = owner; !strings.HasSuffix(name, zone) {
				return "", nil, false
			}
			continue
		}
		for _, record := range r.records[name] {
			if strings.HasPrefix(record, qtype+" ") {
				answer = append(answer, owner+" 5 IN "+record)
			}
		}
		if r.exists[name] || len(r.records[name]) > 0 {
			return "NOERROR", answer, true
		}
		return "NXDOMAIN", answer, true
	}
	return "SERVFAIL", nil, true
}

// world makes random Services of few names and addresses, so that they meet.
type world struct{ *rand.Rand }

func (w world) pick(all ...string) string { return all[w.IntN(len(all))] }

func (w world) service(ns, name string) *dns.Service {
	s := &dns.Service{Namespace: ns, Name: name}
	switch w.IntN(4) {
	case 0:
		s.ExternalName = w.pick("www.example.com.", w.pick("a", "b", "c")+"."+w.pick("x", "y", "z")+".svc."+zone, "ns.dns."+zone)
		return s
	case 1, 2:
		s.Headless = true
	default:
		s.ClusterIPs = append(s.ClusterIPs, w.addr(false, "10.96.0.%d", "fd00:10:96::%x"))
		if w.IntN(2) == 0 {
			s.ClusterIPs = append(s.ClusterIPs, w.addr(true, "10.96.0.%d", "fd00:10:96::%x"))
		}
		s.Ports = w.ports()
	}
	for range w.IntN(4) {
		e := dns.Endpoints{Ports: w.ports()}
		for range w.IntN(4) {
			x := dns.Endpoint{Addr: w.addr(w.IntN(3) == 0, "10.244.1.%d", "fd00:10:244:1::%x")}
			if w.IntN(3) == 0 {
				x.Hostname = w.pick("web-0", "web-1")
			}
			e.Each = append(e.Each, x)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func (w world) addr(v6 bool, format4, format6 string) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf(format6, 16+w.IntN(8)))
	}
	return netip.MustParseAddr(fmt.Sprintf(format4, 16+w.IntN(8)))
}

func (w world) ports() (all []dns.Port) {
	for _, p := range []dns.Port{{Name: "http", Proto: "tcp", Number: 80}, {Name: "dns", Proto: "udp", Number: 53}, {Name: "dns", Proto: "tcp", Number: 53}, {Proto: "tcp", Number: 1}} {
		if w.IntN(3) == 0 {
			all = append(all, p)
		}
	}
	return all
}

// questions are all names that there are, and some that there are not.
func (w world) questions(r *reference) (names []string) {
	for name := range r.exists {
		names = append(names, name, "x."+name, strings.Replace(name, "-", "x", 1))
	}
	for name := range r.records {
		names = append(names, name)
	}
	for i := range 24 {
		names = append(names, reverse(fmt.Sprintf("10.96.0.%d", 16+i%8)), reverse(fmt.Sprintf("fd00:10:244:1::%x", 16+i%8)), reverse(fmt.Sprintf("10.244.1.%d", 10+i)))
	}
	for i, name := range names {
		if w.IntN(4) == 0 {
			names[i] = strings.ToUpper(name)
		}
	}
	return names
}

func TestAgainstReference(t *testing.T) {
	seed := rand.Uint64()
	w := world{rand.New(rand.NewPCG(1, seed))}
	z, err := dns.NewZone(zoneConfig)
	if err != nil {
		t.Fatal(err)
	}
	services, namespaces := map[string]*dns.Service{}, map[string]bool{}
	asked := 0
	for range 20 {
		c := dns.Changes{Services: map[string]*dns.Service{}, Namespaces: map[string]bool{w.pick("x", "y", "z"): w.IntN(3) > 0}}
		for range 1 + w.IntN(6) {
			ns, name := w.pick("x", "y", "z"), w.pick("a", "b", "c")
			id := ns + "/" + name
			c.Services[id] = nil
			delete(services, id)
			if w.IntN(4) > 0 {
				c.Services[id] = w.service(ns, name)
				services[id] = c.Services[id]
			}
		}
		for ns, is := range c.Namespaces {
			namespaces[ns] = is
		}
		if z, err = z.With(c); err != nil {
			t.Fatal(err)
		}
		s, r := newServer(t, z), newReference(services, namespaces)
		for _, name := range w.questions(r) {
			asked += compare(t, s, r, namespaces, name)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d questions", asked)
}

func compare(t *testing.T, s *dns.Server, r *reference, namespaces map[string]bool, name string) (asked int) {
	t.Helper()
	for _, qtype := range []string{"A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "MX"} {
		rcode, want, ok := r.answer(name, qtype)
		if !ok || isPodOrNamespaceless(name, namespaces) {
			continue
		}
		asked++
		got := exchange(t, s, newQuery(name+" "+qtype).SetEdns0(1232, false))
		if got.Truncated {
			continue
		}
		if wire.RcodeToString[got.Rcode] != rcode {
			t.Errorf("%s %s: got %s, want %s", name, qtype, wire.RcodeToString[got.Rcode], rcode)
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, records(got.Answer), emptyIsNil); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", name, qtype, diff)
		}
		for _, rr := range got.Extra {
			if rr.Header().Rrtype == wire.TypeOPT {
				continue
			}
			if _, known, _ := r.answer(rr.Header().Name, wire.TypeToString[rr.Header().Rrtype]); !slices.Contains(known, records([]wire.RR{rr})[0]) {
				t.Errorf("%s %s: additional record %v is not so", name, qtype, rr)
			}
		}
	}
	return asked
}

// isPodOrNamespaceless tells names apart that the reference does not know: pods', and those of namespaces that have Services alone, as it is for
// a moment while a namespace goes.
func isPodOrNamespaceless(name string, namespaces map[string]bool) bool {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(name), "."+zone), ".")
	if last := labels[len(labels)-1]; last == "pod" {
		return len(labels) > 2
	} else if last == "svc" && len(labels) == 2 {
		return !namespaces[labels[0]]
	}
	return false
}
