package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
)

func TestMain(m *testing.M) { lab.Main(m) }

// routed is a client and a server with a router between them, whose way to the server takes 1400 bytes, not 1500.
type routed struct {
	client, router, server *lab.Namespace
	near, far              *lab.Link // of the router
}

// way is the addresses of one family.
type way struct {
	name                           string
	client, router, server, nobody netip.Addr
	headers                        int
}

func ways() []way {
	parse := netip.MustParseAddr
	all := []way{
		{"IPv4", parse("192.168.254.11"), parse("192.168.254.12"), parse("203.0.113.2"), parse("203.0.113.9"), 28},
		{"IPv6", parse("fd00:254::11"), parse("fd00:254::12"), parse("2001:db8::2"), parse("2001:db8::9"), 48},
	}
	if !lab.HasIPv6() {
		return all[:1]
	}
	return all
}

func newRouted(t *testing.T) *routed {
	t.Helper()
	r := &routed{}
	for name, n := range map[string]**lab.Namespace{"client": &r.client, "router": &r.router, "server": &r.server} {
		var err error
		if *n, err = lab.NewNamespace(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*n).Close() })
	}
	link := func(device string, mtu int, nodes ...*lab.Namespace) *lab.Link {
		l, err := lab.NewLink(lab.LinkConfig{Device: device, MTU: mtu}, nodes...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	r.near = link("eth0", 1500, r.client, r.router)
	r.far = link("eth1", 1400, r.router, r.server)
	for i, far := range []string{"203.0.113.%/24", "2001:db8::%/64"}[:len(ways())] {
		near := []string{"192.168.254.%/24", "fd00:254::%/64"}[i]
		addr := func(pattern, host string) netip.Prefix {
			return netip.MustParsePrefix(strings.Replace(pattern, "%", host, 1))
		}
		forwarding := []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}[i]
		patience := []string{"net.ipv4.neigh.eth1.retrans_time_ms", "net.ipv6.neigh.eth1.retrans_time_ms"}[i] // with who does not exist
		for _, err := range []error{
			r.client.AddAddr("eth0", addr(near, "11")), r.router.AddAddr("eth0", addr(near, "12")),
			r.router.AddAddr("eth1", addr(far, "1")), r.server.AddAddr("eth1", addr(far, "2")),
			r.router.Sysctl(forwarding, "1"), r.router.Sysctl(patience, "20"),
			r.client.AddRoute(addr(far, "0").Masked(), addr(near, "12").Addr(), "eth0"),
			r.server.AddRoute(addr(near, "0").Masked(), addr(far, "1").Addr(), "eth1"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

func pinger(t *testing.T, n *lab.Namespace, dst netip.Addr, c tool.PingConfig) *tool.Pinger {
	t.Helper()
	p, err := n.Pinger(dst, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// ping returns the answers too.
func ping(t *testing.T, n *lab.Namespace, dst netip.Addr, c tool.PingConfig) (tool.PingSummary, []tool.Answer) {
	t.Helper()
	var answers []tool.Answer
	s, err := pinger(t, n, dst, c).Run(t.Context(), func(a tool.Answer) { answers = append(answers, a) })
	if err != nil {
		t.Fatal(err)
	}
	return s, answers
}

// fast asks ten times a second at most as long as a busy machine may take to answer.
func fast(count int) tool.PingConfig {
	return tool.PingConfig{Count: count, Interval: 10 * time.Millisecond, Wait: 20 * time.Second, Size: 56}
}

func TestPing(t *testing.T) {
	r := newRouted(t)
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			s, answers := ping(t, r.client, w.server, fast(5))
			if s.Sent != 5 || s.Received != 5 || s.Duplicates != 0 || s.Errors != 0 || s.Loss() != 0 || s.Address != w.server ||
				s.Min <= 0 || s.Avg < s.Min || s.Max < s.Avg {
				t.Errorf("got %+v", s)
			}
			for i, a := range answers {
				if a.From != w.server || a.TTL != 63 || a.Bytes != 64 || a.Seq < 1 || a.Seq > 5 || a.RTT <= 0 || a.Err != nil {
					t.Errorf("answer %d: got %+v", i, a)
				}
			}
		})
	}
}

func TestPingErrors(t *testing.T) {
	r := newRouted(t)
	for _, w := range ways() {
		words := map[string][]string{
			"IPv4": {"time to live exceeded", "fragmentation needed, MTU 1400", "host unreachable"},
			"IPv6": {"hop limit exceeded", "packet too big, MTU 1400", "address unreachable"},
		}[w.name]
		for _, tt := range []struct {
			name string
			dst  netip.Addr
			c    tool.PingConfig
			want string
		}{
			{"TTL", w.server, tool.PingConfig{TTL: 1}, words[0]},
			{"too big for a later link", w.server, tool.PingConfig{Size: 1500 - w.headers, Discovery: tool.PathMTUProbe}, words[1]},
			{"nobody there", w.nobody, tool.PingConfig{}, words[2]},
		} {
			t.Run(w.name+" "+tt.name, func(t *testing.T) {
				tt.c.Count, tt.c.Wait = 1, 20*time.Second
				s, answers := ping(t, r.client, tt.dst, tt.c)
				if s.Sent != 1 || s.Received != 0 || s.Errors != 1 || len(answers) != 1 {
					t.Fatalf("got %+v, %v", s, answers)
				}
				var icmp *tool.ICMPError
				if !errors.As(answers[0].Err, &icmp) || icmp.Words() != tt.want || icmp.From != w.router || answers[0].Seq != 1 {
					t.Errorf("got %v, want %q from %v", answers[0], tt.want, w.router)
				}
			})
		}
	}
}

// Once the router has told its MTU, a packet that must not be cut is not even sent, and the error has that MTU.
func TestPingKnownPathMTU(t *testing.T) {
	r := newRouted(t)
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			p := pinger(t, r.client, w.server, tool.PingConfig{Size: 1500 - w.headers, Discovery: tool.PathMTUDo})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var icmp *tool.ICMPError
			if a, err := p.Ask(ctx); !errors.As(err, &icmp) || icmp.MTU != 1400 {
				t.Fatalf("first: got %v, %v", a, err)
			}
			_, err := p.Ask(ctx)
			if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), "1500 bytes with headers, and the path's MTU is 1400") {
				t.Errorf("second: got %v", err)
			}
			if _, err := pinger(t, r.client, w.server, tool.PingConfig{Size: 1400 - w.headers, Discovery: tool.PathMTUDo}).Ask(ctx); err != nil {
				t.Errorf("as large as the path takes: got %v", err)
			}
			if s, _ := ping(t, r.client, w.server, tool.PingConfig{Count: 1, Wait: 20 * time.Second, Size: 4000}); s.Received != 1 {
				t.Errorf("in fragments: got %v", s)
			}
		})
	}
}

func TestPingLossAndDuplicates(t *testing.T) {
	r := newRouted(t)
	w := ways()[0]
	ping(t, r.client, w.server, fast(1)) // neighbours are known
	r.near.SetFaultsBetween(0, 1, lab.Faults{Loss: 1})
	c := fast(3)
	c.Wait = 50 * time.Millisecond
	if s, answers := ping(t, r.client, w.server, c); s.Sent != 3 || s.Received != 0 || s.Loss() != 100 || len(answers) != 0 {
		t.Errorf("all lost: got %+v, %v", s, answers)
	}
	r.near.SetFaultsBetween(0, 1, lab.Faults{Duplicate: 1})
	p := pinger(t, r.client, w.server, tool.PingConfig{Interval: 10 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	duplicates := 0
	s, err := p.Run(ctx, func(a tool.Answer) {
		if a.Duplicate {
			if duplicates++; duplicates == 3 {
				cancel() // as Ctrl-C does
			}
		}
	})
	if err != nil || duplicates != 3 || s.Duplicates != 3 || s.Received < 3 || s.Sent < s.Received {
		t.Errorf("all twice: got %+v, %v", s, err)
	}
}

func TestPingSource(t *testing.T) {
	r := newRouted(t)
	second := netip.MustParsePrefix("192.168.254.77/32")
	if err := r.client.AddAddr("lo", second); err != nil {
		t.Fatal(err)
	}
	if err := r.router.AddRoute(second, ways()[0].client, "eth0"); err != nil {
		t.Fatal(err)
	}
	c := fast(1)
	c.Source, c.Device = second.Addr(), "eth0"
	if s, _ := ping(t, r.client, ways()[0].server, c); s.Received != 1 {
		t.Errorf("got %v", s)
	}
	for _, tt := range []struct {
		c    tool.PingConfig
		want string
	}{
		{tool.PingConfig{Source: netip.MustParseAddr("192.168.254.78")}, "use source address 192.168.254.78: cannot assign requested address"},
		{tool.PingConfig{Source: netip.MustParseAddr("fd00::1")}, "not of one family"},
		{tool.PingConfig{Device: "eth9"}, "use interface eth9: no such device"},
		{tool.PingConfig{Size: -1}, "want 0 to 65507"},
		{tool.PingConfig{Size: 65508}, "want 0 to 65507"},
		{tool.PingConfig{TTL: 256}, "want 1 to 255"},
		{tool.PingConfig{Discovery: "maybe"}, "want do, want, dont or probe"},
	} {
		if _, err := r.client.Pinger(ways()[0].server, tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.c, err, tt.want)
		}
	}
}

// An address without a route is an error of sending, and of each request.
func TestPingWithoutRoute(t *testing.T) {
	r := newRouted(t)
	s, answers := ping(t, r.client, netip.MustParseAddr("10.9.9.9"), fast(2))
	if s.Sent != 2 || s.Errors != 2 || len(answers) != 2 || !errors.Is(answers[1].Err, syscall.ENETUNREACH) {
		t.Errorf("got %+v, %v", s, answers)
	}
}

// dropRaw makes a Pinger on a thread that may not open raw sockets, in a namespace where these groups may ping; by default nobody.
func dropRaw(t *testing.T, n *lab.Namespace, groups string, dst netip.Addr, c tool.PingConfig) (p *tool.Pinger, err error) {
	t.Helper()
	if groups != "" {
		if err := n.Sysctl("net.ipv4.ping_group_range", groups); err != nil {
			t.Fatal(err)
		}
	}
	err = n.Do(func() error { // on a thread that nobody uses afterwards
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&header, &caps[0]); err != nil {
			return err
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &caps[0]); err != nil {
			return err
		}
		p, err = tool.NewPinger(dst, c)
		return err
	})
	return p, err
}

func TestPingWithoutRawSockets(t *testing.T) {
	r := newRouted(t)
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			p, err := dropRaw(t, r.client, "0 0", w.server, fast(3))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if s, err := p.Run(t.Context(), func(tool.Answer) {}); err != nil || s.Received != 3 {
				t.Errorf("got %+v, %v", s, err)
			}
			p, err = dropRaw(t, r.client, "0 0", w.server, tool.PingConfig{TTL: 1, Size: 56})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var icmp *tool.ICMPError
			if _, err := p.Ask(t.Context()); !errors.As(err, &icmp) || !icmp.TimeExceeded() || icmp.From != w.router {
				t.Errorf("got %v", err)
			}
			if _, err := dropRaw(t, r.router, "", w.server, fast(1)); err == nil || !strings.Contains(err.Error(), "ping_group_range") {
				t.Errorf("forbidden: got %v", err)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	r := newRouted(t)
	for _, w := range ways() {
		for _, tt := range []struct {
			name    string
			dst     netip.Addr
			reached bool
			want    []netip.Addr
		}{
			{"server", w.server, true, []netip.Addr{w.router, w.server}},
			{"nobody", w.nobody, false, []netip.Addr{w.router, w.router}},
		} {
			t.Run(w.name+" "+tt.name, func(t *testing.T) {
				var got []netip.Addr
				var text string
				reached, err := pinger(t, r.client, tt.dst, tool.PingConfig{}).Trace(t.Context(),
					tool.TraceConfig{Probes: 2, Wait: 20 * time.Second}, func(h tool.Hop) {
						got = append(got, h.Probes[0].From)
						text += h.String() + "\n"
						if h.Probes[0].From != h.Probes[1].From || h.TTL != len(got) {
							t.Errorf("got %+v", h)
						}
					})
				if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" || reached != tt.reached {
					t.Errorf("%v, reached: %v, -want +got\n%s%s", err, reached, diff, text)
				}
			})
		}
	}
}

func TestAnswerJSON(t *testing.T) {
	router := netip.MustParseAddr("192.168.254.12")
	for _, tt := range []struct {
		a    tool.Answer
		want string
	}{
		{tool.Answer{Seq: 1, From: router, RTT: tool.Millis(1500 * time.Microsecond), Bytes: 64, TTL: 63}, `{"seq":1,"from":"192.168.254.12","rttMs":1.5,"bytes":64,"ttl":63}`},
		{tool.Answer{Seq: 2, From: router, Err: &tool.ICMPError{From: router, Type: 3, Code: 4, MTU: 1400}},
			`{"seq":2,"from":"192.168.254.12","error":"fragmentation needed, MTU 1400","mtu":1400}`},
		{tool.Answer{Seq: 3, Err: syscall.ENETUNREACH}, `{"seq":3,"error":"network is unreachable"}`},
	} {
		got, err := json.Marshal(tt.a)
		if err != nil || string(got) != tt.want {
			t.Errorf("got %s, %v, want %s", got, err, tt.want)
		}
	}
}
