package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a DNS of some records: "NAME TYPE" to what they have.
type names map[string]string

func (n names) exchange(_ context.Context, query []byte, client netip.Addr) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || !m.RecursionDesired || client != netip.MustParseAddr("10.244.1.2") {
		return nil, fmt.Errorf("a query of %v: %w", client, err)
	}
	q := m.Questions[0]
	m.Response = true
	m.RCode = dnsmessage.RCodeNameError
	for _, t := range []string{"A", "AAAA", "CNAME"} {
		if _, ok := n[q.Name.String()+" "+t]; ok {
			m.RCode = dnsmessage.RCodeSuccess
		}
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
	if to, ok := n[q.Name.String()+" CNAME"]; ok {
		name := dnsmessage.MustNewName(to)
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: name}})
		header.Name = name
	}
	for _, addr := range strings.Fields(n[header.Name.String()+" "+strings.TrimPrefix(q.Type.String(), "Type")]) {
		a := netip.MustParseAddr(addr)
		var body dnsmessage.ResourceBody = &dnsmessage.AAAAResource{AAAA: a.As16()}
		if a.Is4() {
			body = &dnsmessage.AResource{A: a.As4()}
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	return m.Pack()
}

func TestLookUp(t *testing.T) {
	dns := names{
		"web.shop.svc.cluster.local. A": "10.96.0.7", "web.shop.svc.cluster.local. AAAA": "fd00:10:96::7",
		"old.shop.svc.cluster.local. CNAME": "web.shop.svc.cluster.local.", "six.shop.svc.cluster.local. AAAA": "fd00:10:96::8",
		"pods.shop.svc.cluster.local. A": "10.244.1.3 10.244.2.3", "example.com. A": "203.0.113.9",
	}
	search := func(name string) []string {
		return []string{name + ".shop.svc.cluster.local.", name + ".svc.cluster.local.", name + "."}
	}
	for _, tt := range []struct {
		name  string
		names []string
		v6    bool
		want  string
		asked []string
	}{
		{"the first candidate", search("web"), false, "10.96.0.7", []string{"web.shop.svc.cluster.local. A NOERROR: web.shop.svc.cluster.local. A 10.96.0.7"}},
		{"IPv6", search("web"), true, "fd00:10:96::7", []string{"web.shop.svc.cluster.local. AAAA NOERROR: web.shop.svc.cluster.local. AAAA fd00:10:96::7"}},
		{"only IPv6 is there", search("six"), false, "fd00:10:96::8", []string{
			"six.shop.svc.cluster.local. A NOERROR:", "six.shop.svc.cluster.local. AAAA NOERROR: six.shop.svc.cluster.local. AAAA fd00:10:96::8",
		}},
		{"an alias", search("old"), false, "10.96.0.7", []string{
			"old.shop.svc.cluster.local. A NOERROR: old.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local., web.shop.svc.cluster.local. A 10.96.0.7",
		}},
		{"the first of many", search("pods"), false, "10.244.1.3", []string{
			"pods.shop.svc.cluster.local. A NOERROR: pods.shop.svc.cluster.local. A 10.244.1.3, pods.shop.svc.cluster.local. A 10.244.2.3",
		}},
		{"the last candidate", search("example.com"), false, "203.0.113.9", []string{
			"example.com.shop.svc.cluster.local. A NXDOMAIN:", "example.com.svc.cluster.local. A NXDOMAIN:", "example.com. A NOERROR: example.com. A 203.0.113.9",
		}},
		{"none", search("none")[:1], false, "invalid IP", []string{"none.shop.svc.cluster.local. A NXDOMAIN:"}},
	} {
		asked, addr, err := exchange(dns.exchange).lookUp(t.Context(), netip.MustParseAddr("10.244.1.2"), tt.names, tt.v6)
		var got []string
		for _, l := range asked {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s: %s", l.Name, l.Type, l.Code, strings.Join(l.Answers, ", "))))
		}
		if err != nil || addr.String() != tt.want || !slices.Equal(got, tt.asked) {
			t.Errorf("%s: got %v, %v, %q, want %s, %q", tt.name, err, addr, got, tt.want, tt.asked)
		}
	}
	for _, name := range []string{"a..b.", strings.Repeat("a", 64) + ".", strings.Repeat("a.", 200)} {
		if _, _, err := exchange(dns.exchange).lookUp(t.Context(), netip.MustParseAddr("10.244.1.2"), []string{name}, false); err == nil || !strings.Contains(err.Error(), "is no name for DNS") {
			t.Errorf("%q: got %v", name, err)
		}
	}
	broken := exchange(func(context.Context, []byte, netip.Addr) ([]byte, error) { return nil, errors.New("broken") })
	if _, _, err := broken.lookUp(t.Context(), netip.Addr{}, search("web"), false); err == nil || err.Error() != "broken" {
		t.Errorf("got %v, want what DNS says", err)
	}
}
