package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/dns"
)

func TestPrintDNS(t *testing.T) {
	server := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for _, tt := range []struct {
		name string
		st   *node.DNSStatus
		want string
	}{
		{"off", nil, ""},
		{"no upstream", &node.DNSStatus{Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}},
			"dns       10.96.0.10, 0 answers, cache 0 hits 0 misses\nupstream  none is known: names outside of the cluster get SERVFAIL; name some in dns.upstreams\n"},
		{"upstreams", &node.DNSStatus{
			Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a")},
			Stats: dns.Stats{
				Answers:   map[string]map[string]uint64{"A": {"NOERROR": 3, "NXDOMAIN": 4}, "AAAA": {"NOERROR": 5}},
				CacheHits: 1, CacheMisses: 2, Upstreams: []dns.UpstreamStatus{
					{Address: server("192.168.254.1:53"), Domain: ".", State: dns.UpstreamUp, Answered: 2, Latency: 3_000_000},
					{Address: server("192.168.254.2:53"), Domain: ".", Problem: "does not answer"},
					{Address: server("127.0.0.53:53"), Domain: ".", Problem: "leads back to this node, and is not asked"},
					{Address: server("192.168.254.3:53"), Domain: "corp.example.", State: dns.UpstreamUp},
				},
			},
		}, `dns       10.96.0.10,fd00:10:96::a, 12 answers, cache 1 hits 2 misses
upstream  192.168.254.1:53 answers, in 1.5ms on average
upstream  192.168.254.2:53 does not answer
upstream  127.0.0.53:53 leads back to this node, and is not asked
upstream  192.168.254.3:53 for corp.example. has not been asked yet
`},
	} {
		var b strings.Builder
		if printDNS(&b, tt.st); b.String() != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, b.String(), tt.want)
		}
	}
}
