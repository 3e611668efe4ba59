package tool

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
)

func header(name string, t dnsmessage.Type) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: t, Class: dnsmessage.ClassINET, TTL: 30}
}

// zone is all records of the server below.
func zone() []dnsmessage.Resource {
	name := dnsmessage.MustNewName
	var long dnsmessage.TXTResource
	for range 20 {
		long.TXT = append(long.TXT, strings.Repeat("x", 100))
	}
	return []dnsmessage.Resource{
		{Header: header("web.test.", dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{10, 96, 0, 1}}},
		{Header: header("web.test.", dnsmessage.TypeAAAA), Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("fd00:10:96::1").As16()}},
		{Header: header("www.test.", dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: name("web.test.")}},
		{Header: header("test.", dnsmessage.TypeMX), Body: &dnsmessage.MXResource{Pref: 10, MX: name("mail.test.")}},
		{Header: header("test.", dnsmessage.TypeNS), Body: &dnsmessage.NSResource{NS: name("ns.test.")}},
		{Header: header("test.", dnsmessage.TypeSOA), Body: &dnsmessage.SOAResource{NS: name("ns.test."), MBox: name("root.test."), Serial: 1, Refresh: 2, Retry: 3, Expire: 4, MinTTL: 5}},
		{Header: header("_http._tcp.web.test.", dnsmessage.TypeSRV), Body: &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 80, Target: name("web.test.")}},
		{Header: header("text.test.", dnsmessage.TypeTXT), Body: &dnsmessage.TXTResource{TXT: []string{`a "b"`, "c\x1b[31m"}}},
		{Header: header("1.0.96.10.in-addr.arpa.", dnsmessage.TypePTR), Body: &dnsmessage.PTRResource{PTR: name("web.test.")}},
		{Header: header("odd.test.", 999), Body: &dnsmessage.UnknownResource{Type: 999, Data: []byte{1, 0xab}}},
		{Header: header("long.test.", dnsmessage.TypeTXT), Body: &long},
	}
}

// reply answers a query from the zone as a server does that knows only what it is told, cut to the size that fits.
func reply(query []byte, most int) []byte {
	var q dnsmessage.Message
	if err := q.Unpack(query); err != nil || len(q.Questions) != 1 {
		return nil
	}
	m := dnsmessage.Message{Header: q.Header, Questions: q.Questions}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, false
	m.RCode = dnsmessage.RCodeNameError
	for _, r := range zone() {
		if r.Header.Name != q.Questions[0].Name {
			continue
		}
		m.RCode = dnsmessage.RCodeSuccess
		if want := q.Questions[0].Type; want == r.Header.Type || want == dnsmessage.TypeALL {
			m.Answers = append(m.Answers, r)
		}
	}
	if len(q.Additionals) == 1 { // EDNS
		m.Additionals = q.Additionals
		if size := int(q.Additionals[0].Header.Class); most == 512 {
			most = size
		}
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	if len(b) > most {
		m.Answers, m.Truncated = nil, true
		b, _ = m.Pack()
	}
	return b
}

// dnsServer answers by UDP and TCP on one port. Before each answer by UDP it sends others that are not to be believed.
func dnsServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listen(t)
	server := netip.MustParseAddrPort(l.Addr().String())
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	t.Cleanup(func() { l.Close(); u.Close(); <-done; <-done })
	go func() {
		defer func() { done <- struct{}{} }()
		for buf := make([]byte, 1500); ; {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			answer := reply(buf[:n], 512)
			wrong := append([]byte{answer[0] ^ 1}, answer[1:]...)
			_, _ = u.WriteToUDPAddrPort(wrong, from)
			_, _ = u.WriteToUDPAddrPort(buf[:n], from) // the query itself is no answer
			_, _ = u.WriteToUDPAddrPort(answer, from)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1<<16)
			if n, err := receivePrefixed(c, buf); err == nil {
				answer := reply(buf[:n], 1<<16)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
			c.Close()
		}
	}()
	return server
}

// patient is for a busy machine.
func patient(c DigConfig) DigConfig {
	c.Timeout = 20 * time.Second
	return c
}

func TestDig(t *testing.T) {
	server := dnsServer(t)
	for _, tt := range []struct {
		name, kind, rcode string
		c                 DigConfig
		network           string
		want              []DNSRecord
	}{
		{"web.test", "a", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"web.test.", 30, "A", "10.96.0.1"}}},
		{"web.test.", "AAAA", "NOERROR", DigConfig{TCP: true}, "tcp", []DNSRecord{{"web.test.", 30, "AAAA", "fd00:10:96::1"}}},
		{"web.test.", "ANY", "NOERROR", DigConfig{PlainDNS: true}, "udp",
			[]DNSRecord{{"web.test.", 30, "A", "10.96.0.1"}, {"web.test.", 30, "AAAA", "fd00:10:96::1"}}},
		{"www.test.", "CNAME", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"www.test.", 30, "CNAME", "web.test."}}},
		{"test.", "MX", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"test.", 30, "MX", "10 mail.test."}}},
		{"test.", "NS", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"test.", 30, "NS", "ns.test."}}},
		{"test.", "SOA", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"test.", 30, "SOA", "ns.test. root.test. 1 2 3 4 5"}}},
		{"_http._tcp.web.test.", "SRV", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"_http._tcp.web.test.", 30, "SRV", "1 2 80 web.test."}}},
		{"text.test.", "TXT", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"text.test.", 30, "TXT", `"a \"b\"" "c\027[31m"`}}},
		{ReverseName(netip.MustParseAddr("10.96.0.1")), "PTR", "NOERROR", DigConfig{}, "udp",
			[]DNSRecord{{"1.0.96.10.in-addr.arpa.", 30, "PTR", "web.test."}}},
		{"odd.test.", "TYPE999", "NOERROR", DigConfig{}, "udp", []DNSRecord{{"odd.test.", 30, "TYPE999", `\# 2 01ab`}}},
		{"web.test.", "TXT", "NOERROR", DigConfig{}, "udp", []DNSRecord{}},
		{"none.test.", "A", "NXDOMAIN", DigConfig{}, "udp", []DNSRecord{}},
		{"long.test.", "TXT", "NOERROR", DigConfig{}, "tcp", []DNSRecord{{"long.test.", 30, "TXT", strings.TrimSpace(strings.Repeat(`"`+strings.Repeat("x", 100)+`" `, 20))}}},
	} {
		t.Run(tt.name+" "+tt.kind, func(t *testing.T) {
			kind, ok := ParseDNSType(tt.kind)
			if !ok {
				t.Fatalf("%q is no type", tt.kind)
			}
			a, err := Dig(t.Context(), tt.name, kind, []netip.AddrPort{server}, patient(tt.c))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, a.Answers); diff != "" || a.RCode != tt.rcode || a.Network != tt.network || !a.Authoritative ||
				a.Server != server || a.Type != strings.ToUpper(tt.kind) || a.Bytes == 0 || a.Took <= 0 || len(a.Additional) != 0 {
				t.Errorf("got %+v, answers -want +got\n%s", a, diff)
			}
			if text := a.String(); !strings.Contains(text, tt.rcode) || strings.ContainsRune(text, '\x1b') {
				t.Errorf("got %q", text)
			}
		})
	}
}

// The next server is asked where one does not answer, and the error names the last.
func TestDigServers(t *testing.T) {
	l := listen(t) // where nobody listens by UDP
	deaf := netip.MustParseAddrPort(l.Addr().String())
	good := dnsServer(t)
	a, err := Dig(t.Context(), "web.test", dnsmessage.TypeA, []netip.AddrPort{deaf, good}, patient(DigConfig{}))
	if err != nil || a.Server != good {
		t.Errorf("got %v, %v, want an answer of %v", a, err, good)
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute := netip.MustParseAddrPort(silent.LocalAddr().String())
	_, err = Dig(t.Context(), "web.test", dnsmessage.TypeA, []netip.AddrPort{mute}, DigConfig{Timeout: 10 * time.Millisecond})
	if err == nil || err.Error() != "ask "+mute.String()+": no answer within 10ms" {
		t.Errorf("got %v", err)
	}
	if _, err := Dig(t.Context(), strings.Repeat("x", 300), dnsmessage.TypeA, []netip.AddrPort{good}, DigConfig{}); err == nil {
		t.Error("a name that is too long: no error")
	}
}

func TestParseDNSRefuses(t *testing.T) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("web.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	answer := func(change func(*dnsmessage.Message)) []byte {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q}}
		change(&m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		change func(*dnsmessage.Message)
		want   error
	}{
		{"as it should be", func(*dnsmessage.Message) {}, nil},
		{"in another case", func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("WEB.test.") }, nil},
		{"another name", func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("web2.test.") }, errNotOurs},
		{"another type", func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }, errNotOurs},
		{"another number", func(m *dnsmessage.Message) { m.ID = 8 }, errNotOurs},
		{"a query", func(m *dnsmessage.Message) { m.Response = false }, errNotOurs},
		{"two questions", func(m *dnsmessage.Message) { m.Questions = append(m.Questions, q) }, errNotOurs},
		{"no question", func(m *dnsmessage.Message) { m.Questions = nil }, errNotOurs},
		{"no question after an error", func(m *dnsmessage.Message) { m.Questions, m.RCode = nil, dnsmessage.RCodeFormatError }, nil},
	} {
		if _, err := parseDNS(answer(tt.change), 7, q); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	whole := reply(mustQuery(t, "web.test.", 7), 512)
	for n := range whole {
		if _, err := parseDNS(whole[:n], 7, q); err == nil {
			t.Errorf("the first %d bytes of %d: no error", n, len(whole))
		}
	}
}

func mustQuery(t testing.TB, name string, id uint16) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzParseDNS(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("web.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	f.Add(reply(mustQuery(f, "web.test.", 7), 512)) // an answer
	f.Add(mustQuery(f, "web.test.", 7))             // a query
	everything := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q}, Answers: zone()}
	b, err := everything.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b) // every kind of record
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseDNS(b, 7, q)
		if err != nil {
			return
		}
		for _, r := range append(append(a.Answers, a.Authority...), a.Additional...) {
			for _, c := range []byte(r.Name + r.Type + r.Data) {
				if c < ' ' || c > '~' {
					t.Fatalf("a terminal would see %q", r.Name+r.Type+r.Data)
				}
			}
		}
		_ = a.String()
	})
}

func TestReverseName(t *testing.T) {
	got := ReverseName(netip.MustParseAddr("fd00:10:96::a"))
	if want := "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestResolvConf(t *testing.T) {
	c := ParseResolvConf(`# of a pod
nameserver 10.96.0.10
nameserver fd00:10:96::a
nameserver nonsense
domain old.test
search default.svc.cluster.local svc.cluster.local cluster.local.
options edns0 ndots:5 timeout:1
sortlist
`)
	want := ResolvConf{
		Nameservers: []string{"10.96.0.10", "fd00:10:96::a", "nonsense"},
		Search:      []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local."}, Options: []string{"edns0", "ndots:5", "timeout:1"},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	servers := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("[fd00:10:96::a]:53")}
	if got := c.Servers(); !slices.Equal(got, servers) {
		t.Errorf("got %v, want %v", got, servers)
	}
	long := strings.Repeat("w.", 117) + "web"
	for _, tt := range []struct {
		name string
		want []string
	}{
		{"web", []string{"web.default.svc.cluster.local.", "web.svc.cluster.local.", "web.cluster.local.", "web."}},
		{"web.", []string{"web."}},
		{"a.b.c.d.e.f", []string{"a.b.c.d.e.f.", "a.b.c.d.e.f.default.svc.cluster.local.", "a.b.c.d.e.f.svc.cluster.local.", "a.b.c.d.e.f.cluster.local."}},
		{long, []string{long + ".", long + ".cluster.local."}}, // with the other domains it is too long
	} {
		if diff := cmp.Diff(tt.want, c.Candidates(tt.name)); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
	if c := ParseResolvConf(""); len(c.Servers()) != 0 || len(c.Candidates("a.b")) != 1 {
		t.Errorf("empty: got %+v", c)
	}
	for options, want := range map[string]int{"": 1, "ndots:2": 2, "ndots:2\noptions rotate ndots:3": 3, "ndots:99": 15, "ndots:-1": 0, "ndots:x": 1} {
		if got := ParseResolvConf("options " + options).nDots(); got != want {
			t.Errorf("options %s: got %d, want %d", options, got, want)
		}
	}
}

// FuzzParseResolvConf: what is read of a resolv.conf reads the same when it has been written, and completes any name.
func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 10.96.0.10\nsearch a b\noptions ndots:5\n", "web")
	f.Add("options ndots:-1 ndots:99\ndomain .\n", "a.b")
	f.Add("# comment\nnameserver\ndomain a.example", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		c := ParseResolvConf(text)
		if diff := cmp.Diff(c, ParseResolvConf(c.String())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if names := c.Candidates(name); len(names) == 0 || !strings.HasSuffix(names[0], ".") {
			t.Errorf("got %+v, %q", c, names)
		}
	})
}
