package dns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"github.com/middleway-net/middleway/stack/dns"
)

const (
	www      = "www.example.com. 300 IN A 203.0.113.5"
	wwwIPv6  = "www.example.com. 300 IN AAAA 2001:db8::5"
	alias    = "alias.example.com. 300 IN CNAME www.example.com."
	foo      = "foo.example.com. 300 IN A 203.0.113.6"
	shortish = "short.example.com. 2 IN A 203.0.113.7"
)

func TestForward(t *testing.T) {
	for _, tt := range []struct {
		name, ask, rcode string
		want             []string
		why              string
	}{
		{name: "address", ask: "www.example.com. A", want: []string{www}, why: "asked upstream"},
		{name: "case", ask: "WWW.Example.COM. A", want: []string{"WWW.Example.COM. 300 IN A 203.0.113.5"}, why: "the client's case is kept"},
		{name: "alias", ask: "alias.example.com. AAAA", want: []string{alias, wwwIPv6}, why: "the whole chain"},
		{name: "no such name", ask: "gone.example.com. A", rcode: "NXDOMAIN", want: []string{soa}, why: "RFC 2308"},
		{name: "no such type", ask: "foo.example.com. AAAA", want: []string{soa}, why: "RFC 2308"},
		{name: "ExternalName", ask: "out.default.svc.cluster.local. A",
			want: []string{foo, "out.default.svc.cluster.local. 5 IN CNAME foo.example.com."}, why: "rule 51: chased upstream in the same answer"},
		{name: "ExternalName, case", ask: "OUT.default.svc.cluster.local. A",
			want: []string{"OUT.default.svc.cluster.local. 5 IN CNAME foo.example.com.", foo}, why: "rule 43"},
		{name: "ExternalName, no such type", ask: "out.default.svc.cluster.local. AAAA",
			want: []string{"out.default.svc.cluster.local. 5 IN CNAME foo.example.com.", soa}, why: "the alias, and why it ends"},
		{name: "address outside of the cluster", ask: "5.113.0.203.in-addr.arpa. PTR", rcode: "NXDOMAIN", want: []string{soa}, why: "rule 50: asked upstream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newResolver(t, network{first: holding(www, wwwIPv6, alias, foo)}, nil)
				for _, kept := range []string{"asked upstream", "from the cache"} {
					got := r.ask(t, newQuery(tt.ask))
					if got == nil {
						t.Fatalf("%s: no answer", kept)
					}
					if want := orDefault(tt.rcode, "NOERROR"); wire.RcodeToString[got.Rcode] != want {
						t.Errorf("%s: got %s, want %s: %s", kept, wire.RcodeToString[got.Rcode], want, tt.why)
					}
					if diff := cmp.Diff(tt.want, records(append(got.Answer, got.Ns...)), emptyIsNil); diff != "" {
						t.Errorf("%s: %s (-want +got):\n%s", kept, tt.why, diff)
					}
					if got.Authoritative {
						t.Errorf("%s: authoritative for a name of others", kept)
					}
				}
				if st := r.Stats(); st.CacheMisses != 1 || st.CacheHits != 1 {
					t.Errorf("got %d misses and %d hits, want 1 and 1", st.CacheMisses, st.CacheHits)
				}
			})
		})
	}
}

// only returns the only record of the answer, which is to be there.
func only(t *testing.T, m *wire.Msg) string {
	t.Helper()
	if m == nil {
		t.Fatal("no answer")
	}
	if m.Rcode != wire.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("got %v", m)
	}
	return records(m.Answer)[0]
}

func TestCacheLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		r := newResolver(t, network{first: counted(holding(www), &asked)}, nil)
		ask := newQuery("www.example.com. A")
		for _, step := range []struct {
			after time.Duration
			want  string
			asked int32
		}{
			{0, www, 1},
			{100 * time.Second, "www.example.com. 200 IN A 203.0.113.5", 1},
			{199 * time.Second, "www.example.com. 1 IN A 203.0.113.5", 1},
			{time.Second, www, 2},
		} {
			time.Sleep(step.after)
			if got := only(t, r.ask(t, ask)); got != step.want || asked.Load() != step.asked {
				t.Errorf("after %v: got %q and %d questions upstream, want %q and %d", step.after, got, asked.Load(), step.want, step.asked)
			}
		}
	})
}

func TestNegativeLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		r := newResolver(t, network{first: counted(holding(www), &asked)}, nil)
		for _, step := range []struct {
			after time.Duration
			asked int32
		}{{0, 1}, {59 * time.Second, 1}, {time.Second, 2}} { // the SOA record's minimum, below its own time to live
			time.Sleep(step.after)
			if r.ask(t, newQuery("gone.example.com. A")); asked.Load() != step.asked {
				t.Errorf("after %v: got %d questions upstream, want %d", step.after, asked.Load(), step.asked)
			}
		}
	})
}

func TestFailOver(t *testing.T) {
	refusing := func(rcode int) server {
		return answering(func(*wire.Msg, bool) *wire.Msg { return &wire.Msg{MsgHdr: wire.MsgHdr{Rcode: rcode}} })
	}
	silent := answering(func(*wire.Msg, bool) *wire.Msg { return nil })
	for _, tt := range []struct {
		name   string
		first  server
		within time.Duration
	}{
		{"silent", silent, 2 * time.Second},
		{"SERVFAIL", refusing(wire.RcodeServerFailure), 0},
		{"REFUSED", refusing(wire.RcodeRefused), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newResolver(t, network{first: tt.first, second: holding(www)}, nil)
				began := time.Now()
				if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www {
					t.Errorf("got %q", got)
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("took %v, want at most %v", took, tt.within)
				}
			})
		})
	}
}

func TestTruncatedUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{first: answering(func(_ *wire.Msg, tcp bool) *wire.Msg {
			if !tcp {
				return &wire.Msg{MsgHdr: wire.MsgHdr{Truncated: true}}
			}
			return &wire.Msg{Answer: []wire.RR{record(www)}}
		})}, nil)
		if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www {
			t.Errorf("got %q", got)
		}
		if got := r.Stats().Upstreams[0].Truncated; got != 1 {
			t.Errorf("got %d truncated, want 1", got)
		}
	})
}

// Who cannot see the query has to guess its ID and question; what he sends is not minded.
func TestForgedAnswers(t *testing.T) {
	forge := func(query []byte, change func(*wire.Msg)) []byte {
		m := new(wire.Msg)
		if err := m.Unpack(query); err != nil {
			panic(err)
		}
		m.Response, m.Extra = true, nil
		m.Answer = []wire.RR{record("www.example.com. 300 IN A 203.0.113.66")}
		change(m)
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return b
	}
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{first: func(network string, query []byte) [][]byte {
			return append([][]byte{
				forge(query, func(m *wire.Msg) { m.Id++ }),
				forge(query, func(m *wire.Msg) { m.Question[0].Name = "other.example.com." }),
				forge(query, func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAAAA }),
				forge(query, func(m *wire.Msg) { m.Response = false }),
				{1, 2, 3},
			}, holding(www)(network, query)...)
		}}, nil)
		if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www {
			t.Errorf("got %q", got)
		}
		if got := r.Stats().Upstreams[0].Discarded; got != 5 {
			t.Errorf("got %d discarded, want 5", got)
		}
	})
}

func TestBadAnswersAreRefused(t *testing.T) {
	for name, answer := range map[string]*wire.Msg{
		"another name":     {Answer: []wire.RR{record(foo)}},
		"beside an answer": {Answer: []wire.RR{record(www), record(foo)}},
		"alias of another": {Answer: []wire.RR{record("x.example.com. 300 IN CNAME www.example.com."), record(www)}},
		"response code":    {MsgHdr: wire.MsgHdr{Rcode: wire.RcodeNotImplemented}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bad := answering(func(*wire.Msg, bool) *wire.Msg { return answer.Copy() })
				r := newResolver(t, network{first: bad, second: holding(www)}, nil)
				if got := only(t, r.ask(t, newQuery("www.example.com. A"))); got != www {
					t.Errorf("got %q, want the second upstream's answer", got)
				}
			})
		})
	}
}

func TestSameQuestionsShareOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked atomic.Int32
		slow := func(network string, query []byte) [][]byte {
			asked.Add(1)
			time.Sleep(time.Second)
			return holding(www)(network, query)
		}
		r := newResolver(t, network{first: slow}, nil)
		for range 100 {
			r.conn.in <- datagram{pack(t, newQuery("www.example.com. A")), clientPort}
		}
		synctest.Wait()
		// Others do not wait for it.
		r.conn.in <- datagram{pack(t, newQuery("web.default.svc.cluster.local. A")), clientPort}
		synctest.Wait()
		if got := len(r.conn.out); got != 1 {
			t.Errorf("got %d answers while the upstream thinks, want the cluster's", got)
		}
		time.Sleep(1100 * time.Millisecond)
		if got := len(r.conn.out); got != 101 || asked.Load() != 1 {
			t.Errorf("got %d answers and %d questions upstream, want 101 and 1", got, asked.Load())
		}
	})
}

// Who asks no longer takes the answer from nobody who asks the same.
func TestOneClientGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{first: func(network string, query []byte) [][]byte {
			time.Sleep(time.Second)
			return holding(www)(network, query)
		}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ask := newQuery("www.example.com. A")
		query := pack(t, ask)
		go r.Resolve(ctx, make([]byte, dns.MaxUDP), query, netip.MustParseAddr("10.244.1.2"))
		synctest.Wait()
		go func() { time.Sleep(250 * time.Millisecond); cancel() }()
		if got := only(t, r.ask(t, ask)); got != www {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Second) // the question of the one who gave up ends
	})
}

func TestServeStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var down atomic.Bool
		r := newResolver(t, network{first: func(network string, query []byte) [][]byte {
			if down.Load() {
				return nil
			}
			return holding(www)(network, query)
		}}, nil)
		ask := newQuery("www.example.com. A")
		r.ask(t, ask)
		down.Store(true)
		time.Sleep(400 * time.Second)
		for range 2 {
			began := time.Now()
			if got := only(t, r.ask(t, ask)); got != "www.example.com. 30 IN A 203.0.113.5" || time.Since(began) > 2*time.Second {
				t.Errorf("got %q after %v, want what was known, within the patience of clients", got, time.Since(began))
			}
		}
		if got := r.Stats().Stale; got != 1 {
			t.Errorf("got %d, want 1: no newer answer is looked for within 30 s", got)
		}
		down.Store(false)
		time.Sleep(31 * time.Second)
		if got := only(t, r.ask(t, ask)); got != www {
			t.Errorf("got %q, want the new one", got)
		}
		down.Store(true)
		time.Sleep(dns.DefaultServeStale + 301*time.Second)
		if got := r.ask(t, ask); got.Rcode != wire.RcodeServerFailure {
			t.Errorf("got %v, want SERVFAIL: it is too old", got)
		}
	})
}

func TestPrefetch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{first: holding(www)}, nil)
		background(t, r.Run)
		ask := newQuery("www.example.com. A")
		r.ask(t, ask)
		time.Sleep(280 * time.Second)
		r.ask(t, ask)
		synctest.Wait()
		if got := r.Stats().Prefetches; got != 0 {
			t.Errorf("got %d prefetches after one question, want 0", got)
		}
		r.ask(t, ask)
		synctest.Wait()
		if got := r.Stats().Prefetches; got != 1 {
			t.Errorf("got %d prefetches, want 1", got)
		}
		if got := only(t, r.ask(t, ask)); got != www {
			t.Errorf("got %q, want the new one", got)
		}
	})
}

func TestStubDomain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		corp := netip.MustParseAddrPort("192.168.254.60:53")
		r := newResolver(t, network{first: holding(www), corp.String(): holding("db.corp.example. 60 IN A 203.0.113.9")}, func(c *dns.Config) {
			c.Stubs = map[string][]netip.AddrPort{"corp.example": {corp}}
		})
		if got := only(t, r.ask(t, newQuery("db.corp.example. A"))); got != "db.corp.example. 60 IN A 203.0.113.9" {
			t.Errorf("got %q", got)
		}
		if got := r.ask(t, newQuery("notcorp.example. A")); got.Rcode != wire.RcodeNameError {
			t.Errorf("got %v, want the other upstream's NXDOMAIN: names end at labels", got)
		}
	})
}

func TestBusy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		silent := answering(func(*wire.Msg, bool) *wire.Msg { return nil })
		r := newResolver(t, network{first: silent}, func(c *dns.Config) { c.MaxConcurrent = 1 })
		r.conn.in <- datagram{pack(t, newQuery("a.example.com. A")), clientPort}
		synctest.Wait()
		began := time.Now()
		if got := r.ask(t, newQuery("b.example.com. A")); got.Rcode != wire.RcodeServerFailure || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want SERVFAIL at once", got, time.Since(began))
		}
		if got := r.Stats().Busy; got != 1 {
			t.Errorf("got %d refused, want 1", got)
		}
		time.Sleep(10 * time.Second)
	})
}

// Who asks for more than a quarter of what may wait leaves the rest to others.
func TestOneClientLeavesOthersRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		silent := answering(func(*wire.Msg, bool) *wire.Msg { return nil })
		r := newResolver(t, network{first: silent}, func(c *dns.Config) { c.MaxConcurrent = 8 })
		other := &net.UDPAddr{IP: net.IPv4(10, 244, 1, 3), Port: 40000}
		for i := range 5 {
			r.conn.in <- datagram{pack(t, newQuery(fmt.Sprintf("%d.example.com. A", i))), clientPort}
		}
		r.conn.in <- datagram{pack(t, newQuery("x.example.com. A")), other}
		synctest.Wait()
		if got := len(r.conn.out); got != 3 || r.Stats().Busy != 3 {
			t.Errorf("got %d answers, %d busy, want 3 SERVFAIL: two of five wait, and the other's", got, r.Stats().Busy)
		}
		time.Sleep(10 * time.Second)
		if got := len(r.conn.out); got != 6 {
			t.Errorf("got %d answers in the end, want 6", got)
		}
	})
}

func TestNoUpstream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{}, nil)
		if got := r.ask(t, newQuery("www.example.com. A")); got.Rcode != wire.RcodeServerFailure {
			t.Errorf("got %v, want SERVFAIL", got)
		}
	})
}

func TestConfigMistakes(t *testing.T) {
	zone, err := dns.NewZone(zoneConfig)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]dns.Config{
		"dns server: a zone is needed": {},
		"upstream 10.96.0.10:53: this is the address of the cluster's DNS itself, and would lead back to it": {
			Zone: zone, Upstreams: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")}},
		"upstream 0.0.0.0:53: not the address and port of a server": {Zone: zone, Upstreams: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}},
		"stub domain corp.example: at least one server is needed":   {Zone: zone, Stubs: map[string][]netip.AddrPort{"corp.example": nil}},
	} {
		if _, err := dns.New(c); err == nil || err.Error() != name {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// Who asks by no network gets what others get.
func TestResolve(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newResolver(t, network{first: holding(www)}, nil)
		for _, question := range []string{"www.example.com. A", "web.default.svc.cluster.local. A", "none.default.svc.cluster.local. A"} {
			m, out := newQuery(question), make([]byte, dns.MaxUDP)
			n := r.Resolve(t.Context(), out, pack(t, m), netip.MustParseAddr("10.244.1.2"))
			got := new(wire.Msg)
			if err := got.Unpack(out[:n]); err != nil {
				t.Fatalf("%s: %v", question, err)
			}
			want := r.ask(t, m)
			if diff := cmp.Diff(records(want.Answer), records(got.Answer), emptyIsNil); diff != "" || got.Rcode != want.Rcode || got.Id != m.Id {
				t.Errorf("%s: got %v, want %v", question, got, want)
			}
		}
		if n := r.Resolve(t.Context(), make([]byte, dns.MaxUDP), []byte("no query"), netip.MustParseAddr("10.244.1.2")); n != 0 {
			t.Errorf("what is no query got %d bytes", n)
		}
	})
}
