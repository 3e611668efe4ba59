package dns

import (
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

func packed(tb testing.TB, m *wire.Msg) []byte {
	tb.Helper()
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// answerTo makes an upstream's answer of records as in zone files, those behind "--" in the authority section.
func answerTo(tb testing.TB, name string, qtype uint16, lines ...string) []byte {
	tb.Helper()
	m := new(wire.Msg)
	m.SetQuestion(name, qtype)
	m.Response, m.Compress = true, true
	section := &m.Answer
	for _, line := range lines {
		if line == "--" {
			section = &m.Ns
			continue
		}
		rr, err := wire.NewRR(line)
		if err != nil {
			tb.Fatal(err)
		}
		*section = append(*section, rr)
	}
	return packed(tb, m)
}

func nameOf(tb testing.TB, s string) (nm name) {
	tb.Helper()
	b, err := toWire(s)
	if err != nil {
		tb.Fatal(err)
	}
	nm.read([]byte(b), 0)
	return nm
}

// FuzzUpstream: what an upstream sends is refused, or comes to clients as a library reads it, also where its compressed names have to lead
// elsewhere since it stands behind an alias.
func FuzzUpstream(f *testing.F) {
	const www = "www.example.com."
	f.Add(answerTo(f, www, typeA, "www.example.com. 300 IN A 203.0.113.5"))
	f.Add(answerTo(f, www, typeA, "www.example.com. 300 IN CNAME a.cdn.example.net.", "a.cdn.example.net. 20 IN CNAME b.cdn.example.net.", "b.cdn.example.net. 20 IN A 203.0.113.5"))
	f.Add(answerTo(f, www, typeA, "--", "example.com. 300 IN SOA ns.example.com. admin.example.com. 1 2 3 4 60"))
	f.Add(answerTo(f, www, typeA, "example.com. 300 IN DNAME example.net.", "www.example.com. 300 IN CNAME www.example.net.", "www.example.net. 1 IN A 203.0.113.5"))
	f.Add(answerTo(f, www, wire.TypeMX, "www.example.com. 300 IN MX 10 mail.example.com.", "--", "www.example.com. 1 IN NS ns.www.example.com."))
	f.Fuzz(func(t *testing.T, msg []byte) {
		nm := nameOf(t, www)
		for _, qtype := range []uint16{typeA, wire.TypeMX} {
			e, err := parseEntry(append([]byte(nil), msg...), &nm, qtype)
			if err != nil {
				continue
			}
			if e.ttl < 0 || e.ttl > maxPositive || len(e.msg) > len(msg) {
				t.Fatalf("entry %+v", e)
			}
			direct := answerOf(t, e, nil)
			alias := answerOf(t, e, []byte("\x03www\x07example\x03com\x00"))
			if len(direct.Answer)+1 != len(alias.Answer) || len(direct.Ns) != len(alias.Ns) {
				t.Fatalf("direct %v, by an alias %v", direct, alias)
			}
			for i, rr := range direct.Answer {
				if _, known := layouts[rr.Header().Rrtype]; !known && rr.Header().Rrtype != typeA {
					continue // the library reads compressed names where there must be none
				}
				if got := alias.Answer[i+1]; got.String() != rr.String() {
					t.Fatalf("direct %v, by an alias %v", rr, got)
				}
			}
		}
	})
}

// answerOf writes an answer from an entry, behind an alias to target if there is one, and has the library read it. Records whose data the
// library does not take are none that this is about.
func answerOf(t *testing.T, e *entry, target []byte) *wire.Msg {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion("www.example.com.", typeA)
	if target != nil {
		m.SetQuestion("out.default.svc.cluster.local.", typeA)
	}
	b := packed(t, m)
	var q query
	if q.read(b) != ask {
		t.Fatal("query")
	}
	r := newReply(&q, make([]byte, maxTCP), b, maxTCP)
	owner := toQuestion
	if target != nil {
		copy(r.room(inAnswer, toQuestion, typeCNAME, len(target)), target)
		owner = r.n - len(target)
	}
	r.entry(e, owner, time.Second)
	n := r.finish(e.code, 0)
	got := new(wire.Msg)
	if err := got.Unpack(r.all[:n]); err != nil {
		t.Skip(err)
	}
	return got
}
