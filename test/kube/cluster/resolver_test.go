package cluster

import (
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

func TestAnswer(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(answer)}
	ended := make(chan error)
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	defer func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name  string
		kind  uint16
		rcode int
		want  []string
	}{
		{"www.example.test.", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.1"}},
		{"WWW.example.test.", dns.TypeAAAA, dns.RcodeSuccess, []string{"2001:db8::1"}},
		{"www.example.test.", dns.TypeMX, dns.RcodeSuccess, nil},
		{"example.test.", dns.TypeA, dns.RcodeNameError, nil},
		{"kubernetes.default.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, nil},
	} {
		got, err := dns.Exchange(new(dns.Msg).SetQuestion(c.name, c.kind), conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		var addrs []string
		for _, rr := range got.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addrs = append(addrs, rr.A.String())
			case *dns.AAAA:
				addrs = append(addrs, rr.AAAA.String())
			}
		}
		if got.Rcode != c.rcode || !slices.Equal(addrs, c.want) {
			t.Errorf("%s %s: %s %v, want %s %v", c.name, dns.TypeToString[c.kind], dns.RcodeToString[got.Rcode], addrs, dns.RcodeToString[c.rcode], c.want)
		}
	}
}
