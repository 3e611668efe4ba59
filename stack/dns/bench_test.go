package dns_test

import (
	"fmt"
	"net/netip"
	"testing"

	wire "github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/stack/dns"
)

// largeZone has n Services of ten endpoints each.
func largeZone(tb testing.TB, n int) *dns.Zone {
	tb.Helper()
	z, err := dns.NewZone(zoneConfig)
	if err != nil {
		tb.Fatal(err)
	}
	z, err = z.With(dns.Changes{Services: byName(largeServices(n)), Namespaces: map[string]bool{"default": true}})
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

func largeServices(n int) (all []*dns.Service) {
	for i := range n {
		s := &dns.Service{
			Namespace: "default", Name: fmt.Sprint("service-", i), ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports: []dns.Port{tcp("http", 80)},
		}
		e := dns.Endpoints{Ports: []dns.Port{tcp("http", 8080)}}
		for k := range 10 {
			e.Each = append(e.Each, dns.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 244 + byte(i>>13), byte(i >> 5), byte(i<<3) + byte(k)})})
		}
		s.Endpoints = []dns.Endpoints{e}
		all = append(all, s)
	}
	return all
}

// BenchmarkAnswer is what an answer costs a worker.
func BenchmarkAnswer(b *testing.B) {
	s, err := newEmptyServer()
	if err != nil {
		b.Fatal(err)
	}
	z, err := largeZone(b, 10000).With(dns.Changes{Services: byName(clusterServices)})
	if err != nil {
		b.Fatal(err)
	}
	s.SetZone(z)
	for _, ask := range []string{
		"service-4711.default.svc.cluster.local. A",
		"service-4711.default.svc.cluster.local. AAAA",
		"www.example.com.default.svc.cluster.local. A",
		"db.data.svc.cluster.local. A",
		"_sql._tcp.db.data.svc.cluster.local. SRV",
		"103.18.96.10.in-addr.arpa. PTR",
	} {
		b.Run(ask, func(b *testing.B) {
			query, out := pack(b, newQuery(ask).SetEdns0(1232, false)), make([]byte, dns.MaxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := s.Answer(out, query, client); !ok {
					b.Fatal("no answer")
				}
			}
		})
	}
}

// BenchmarkCodecs compares our reading and writing of messages with that of two libraries: a question is read, and one address is
// answered, without any lookup for theirs.
func BenchmarkCodecs(b *testing.B) {
	query, out := pack(b, newQuery("web.default.svc.cluster.local. A").SetEdns0(1232, false)), make([]byte, dns.MaxUDP)
	b.Run("ours, with lookup", func(b *testing.B) {
		s, err := newEmptyServer()
		if err != nil {
			b.Fatal(err)
		}
		z, err := largeZone(b, 10000).With(dns.Changes{Services: byName(clusterServices)})
		if err != nil {
			b.Fatal(err)
		}
		s.SetZone(z)
		b.ReportAllocs()
		for b.Loop() {
			s.Answer(out, query, client)
		}
	})
	b.Run("dnsmessage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := answerByDNSMessage(out, query); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("miekg", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := answerByMiekg(out, query); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func answerByDNSMessage(out, query []byte) error {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return err
	}
	q, err := p.Question()
	if err != nil {
		return err
	}
	h.Response, h.Authoritative = true, true
	w := dnsmessage.NewBuilder(out[:0], h)
	w.EnableCompression()
	for _, step := range []func() error{
		w.StartQuestions,
		func() error { return w.Question(q) },
		w.StartAnswers,
		func() error {
			return w.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}, dnsmessage.AResource{A: [4]byte{10, 96, 0, 20}})
		},
		w.StartAdditionals,
		func() error {
			var opt dnsmessage.ResourceHeader
			if err := opt.SetEDNS0(1232, 0, false); err != nil {
				return err
			}
			return w.OPTResource(opt, dnsmessage.OPTResource{})
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	_, err = w.Finish()
	return err
}

func answerByMiekg(out, query []byte) error {
	q, m := new(wire.Msg), new(wire.Msg)
	if err := q.Unpack(query); err != nil {
		return err
	}
	m.SetReply(q)
	m.Authoritative, m.Compress = true, true
	m.Answer = append(m.Answer, &wire.A{
		Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 5}, A: []byte{10, 96, 0, 20},
	})
	m.SetEdns0(1232, false)
	_, err := m.PackBuffer(out)
	return err
}

// BenchmarkWith is what a change of one Service costs among 10,000.
func BenchmarkWith(b *testing.B) {
	z := largeZone(b, 10000)
	change := dns.Changes{Services: byName(largeServices(4711)[4710:])}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := z.With(change); err != nil {
			b.Fatal(err)
		}
	}
}

func pack(tb testing.TB, m *wire.Msg) []byte {
	tb.Helper()
	query, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return query
}

// BenchmarkFirst is what 10,000 Services cost that come at once.
func BenchmarkFirst(b *testing.B) {
	all := dns.Changes{Services: byName(largeServices(10000))}
	empty, err := dns.NewZone(zoneConfig)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := empty.With(all); err != nil {
			b.Fatal(err)
		}
	}
}
