package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/stack/dns"
)

// NameLookup is a question to the cluster's DNS, and its answer.
type NameLookup struct {
	Name string `json:"name"` // with a dot at its end
	Type string `json:"type"` // A or AAAA
	// Code is how DNS answered: NOERROR, NXDOMAIN (no such name), SERVFAIL, …
	Code string `json:"code"`
	// Answers are records in the words of a zone file, without times to live: "web.default.svc.cluster.local. A 10.96.0.7".
	Answers []string `json:"answers"`
}

// exchange answers a query of a client; both are as on the wire.
type exchange func(ctx context.Context, query []byte, client netip.Addr) ([]byte, error)

// lookUp asks for names one after another, as a program's resolver does it, and returns the first address that one has.
func (e exchange) lookUp(ctx context.Context, client netip.Addr, names []string, v6 bool) (asked []NameLookup, found netip.Addr, err error) {
	types := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	if v6 {
		types = types[1:]
	}
	for _, name := range names {
		for _, t := range types {
			l, addr, err := e.lookUpOne(ctx, client, name, t)
			if err != nil {
				return asked, addr, err
			}
			asked = append(asked, l)
			if addr.IsValid() {
				return asked, addr, nil
			}
			if l.Code == codes[dnsmessage.RCodeNameError] {
				break // it has no addresses of the other family either
			}
		}
	}
	return asked, netip.Addr{}, nil
}

// lookUpOne asks one question by the functions that answer pods.
func (e exchange) lookUpOne(ctx context.Context, client netip.Addr, name string, t dnsmessage.Type) (l NameLookup, addr netip.Addr, err error) {
	l = NameLookup{Name: name, Type: strings.TrimPrefix(t.String(), "Type"), Answers: []string{}}
	qname, err := dnsmessage.NewName(name)
	if err != nil {
		return l, addr, fmt.Errorf("trace: %q is no name for DNS: %w", name, err)
	}
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: qname, Type: t, Class: dnsmessage.ClassINET}},
	}
	packed, err := query.Pack()
	if err != nil {
		return l, addr, fmt.Errorf("trace: %q is no name for DNS: %w", name, err)
	}
	b, err := e(ctx, packed, client)
	if err != nil {
		return l, addr, err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(b); err != nil {
		return l, addr, fmt.Errorf("trace: the answer about %s: %w", name, err)
	}
	l.Code = codeName(answer.RCode)
	for _, r := range answer.Answers {
		text, a := recordText(r)
		l.Answers = append(l.Answers, text)
		if a.IsValid() && !addr.IsValid() {
			addr = a
		}
	}
	return l, addr, nil
}

// recordText writes a record, and returns its address if it has one.
func recordText(r dnsmessage.Resource) (string, netip.Addr) {
	name := r.Header.Name.String()
	switch body := r.Body.(type) {
	case *dnsmessage.AResource:
		a := netip.AddrFrom4(body.A)
		return name + " A " + a.String(), a
	case *dnsmessage.AAAAResource:
		a := netip.AddrFrom16(body.AAAA)
		return name + " AAAA " + a.String(), a
	case *dnsmessage.CNAMEResource:
		return name + " CNAME " + body.CNAME.String(), netip.Addr{}
	}
	return name + " " + strings.TrimPrefix(r.Header.Type.String(), "Type"), netip.Addr{}
}

// codes are the names of RFC 2929, section 2.3.
var codes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

func codeName(c dnsmessage.RCode) string {
	if s, ok := codes[c]; ok {
		return s
	}
	return fmt.Sprint("RCODE", uint16(c))
}

// askDNS asks the cluster's DNS as a pod of this node does.
func (n *Node) askDNS(ctx context.Context, query []byte, client netip.Addr) ([]byte, error) {
	if n.dns.server == nil {
		return nil, fmt.Errorf("the daemon of %s answers no names: it has no dns.addresses; ask for an address", n.config.Name)
	}
	out := make([]byte, dns.MaxUDP)
	k := n.dns.server.Resolve(ctx, out, query, client)
	return out[:k], nil
}
