package cluster

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// ResolverCommand is the hidden command that serves the nodes' DNS.
const ResolverCommand = "resolver"

// outsideName is the one name that there is outside.
const outsideName = "www.example.test."

// Resolve is the nodes' DNS server, on port 53 of all addresses of its network namespace: it knows one name outside of the
// cluster, with an address of each family from the ranges for documentation (RFC 5737, 3849), and denies the rest.
func Resolve(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: ":53", Net: network, Handler: dns.HandlerFunc(answer)}
		work.Go(server.ListenAndServe)
		context.AfterFunc(ctx, func() { _ = server.Shutdown() })
	}
	if err := work.Wait(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// answer answers one question.
func answer(w dns.ResponseWriter, asked *dns.Msg) {
	reply := new(dns.Msg).SetReply(asked)
	reply.Authoritative, reply.RecursionAvailable = true, true
	if len(asked.Question) != 1 || !strings.EqualFold(asked.Question[0].Name, outsideName) {
		reply.Rcode = dns.RcodeNameError
		_ = w.WriteMsg(reply) // who asked may have gone
		return
	}
	q := asked.Question[0]
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}
	switch q.Qtype {
	case dns.TypeA:
		reply.Answer = append(reply.Answer, &dns.A{Hdr: head, A: net.ParseIP("192.0.2.1")})
	case dns.TypeAAAA:
		reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: head, AAAA: net.ParseIP("2001:db8::1")})
	}
	_ = w.WriteMsg(reply)
}
