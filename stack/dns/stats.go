package dns

import (
	"net/netip"
	"sync/atomic"
)

// stats are counters that any goroutine adds to.
type stats struct {
	answers [len(countedTypes) + 1][len(countedCodes) + 1]atomic.Uint64

	hits, misses, stale, prefetches, busy atomic.Uint64
}

// countedTypes and countedCodes are counted by themselves, all others together.
var (
	countedTypes = [...]struct {
		number uint16
		name   string
	}{
		{typeA, "A"}, {typeAAAA, "AAAA"}, {typeSRV, "SRV"}, {typePTR, "PTR"}, {typeCNAME, "CNAME"}, {typeTXT, "TXT"},
		{typeNS, "NS"}, {typeSOA, "SOA"}, {15, "MX"}, {64, "SVCB"}, {65, "HTTPS"}, {typeANY, "ANY"},
	}
	countedCodes = [...]struct {
		code RCode
		name string
	}{
		{NoError, "NOERROR"}, {NXDomain, "NXDOMAIN"}, {ServFail, "SERVFAIL"}, {Refused, "REFUSED"}, {FormErr, "FORMERR"}, {NotImp, "NOTIMP"},
	}
)

func (s *stats) count(qtype uint16, code RCode) {
	t, c := 0, 0
	for t < len(countedTypes) && countedTypes[t].number != qtype {
		t++
	}
	for c < len(countedCodes) && countedCodes[c].code != code {
		c++
	}
	s.answers[t][c].Add(1)
}

// Stats are a server's counters since its start.
type Stats struct {
	// Answers counts answers by the question's type and the response code, each by name, or "other".
	Answers map[string]map[string]uint64 `json:"answers"`
	// CacheHits are answers of upstreams that were at hand, CacheMisses questions that had to wait for an upstream.
	CacheHits   uint64 `json:"cacheHits"`
	CacheMisses uint64 `json:"cacheMisses"`
	// Stale are answers given beyond their life since no upstream answered, Prefetches those asked anew before its end, and Evictions those given
	// up for others.
	Stale      uint64 `json:"stale"`
	Prefetches uint64 `json:"prefetches"`
	Evictions  uint64 `json:"evictions"`
	// Busy are questions that were not asked upstream since too many were waiting.
	Busy      uint64           `json:"busy"`
	Upstreams []UpstreamStatus `json:"upstreams"`
}

// UpstreamStatus is what is known of one upstream.
type UpstreamStatus struct {
	Address netip.AddrPort `json:"address"`
	// Domain is the stub domain that it is asked about, "." for all names.
	Domain string `json:"domain"`
	// State is UpstreamUp, UpstreamDown, or UpstreamLoop if it leads back to this node.
	State string `json:"state"`
	// Problem says what is wrong with it; "" if nothing is.
	Problem string `json:"problem"`
	// Queries were sent, Answered of them were answered, after Latency nanoseconds in sum, and Errors not or not sensibly.
	Queries  uint64 `json:"queries"`
	Answered uint64 `json:"answered"`
	Latency  int64  `json:"latencyNanoseconds"`
	Errors   uint64 `json:"errors"`
	// Truncated answers were asked for over TCP, and Discarded datagrams were no answers to what was asked.
	Truncated uint64 `json:"truncated"`
	Discarded uint64 `json:"discarded"`
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	all := Stats{
		Answers:   map[string]map[string]uint64{},
		CacheHits: s.stats.hits.Load(), CacheMisses: s.stats.misses.Load(), Stale: s.stats.stale.Load(), Prefetches: s.stats.prefetches.Load(),
		Evictions: s.cache.evicted.Load(), Busy: s.stats.busy.Load(), Upstreams: s.upstreamStatus(),
	}
	for t := range s.stats.answers {
		for c := range s.stats.answers[t] {
			n := s.stats.answers[t][c].Load()
			if n == 0 {
				continue
			}
			typeName, codeName := "other", "other"
			if t < len(countedTypes) {
				typeName = countedTypes[t].name
			}
			if c < len(countedCodes) {
				codeName = countedCodes[c].name
			}
			if all.Answers[typeName] == nil {
				all.Answers[typeName] = map[string]uint64{}
			}
			all.Answers[typeName][codeName] = n
		}
	}
	return all
}

func (s *Server) upstreamStatus() (all []UpstreamStatus) {
	for _, g := range *s.groups.Load() {
		var domain name
		domain.read([]byte(g.domain), 0)
		for _, u := range g.servers {
			all = append(all, UpstreamStatus{
				Address: u.addr, Domain: domain.String(), State: u.state(), Problem: problems[u.state()], Queries: u.queries.Load(), Answered: u.answered.Load(),
				Latency: u.latency.Load(), Errors: u.errors.Load(), Truncated: u.truncated.Load(), Discarded: u.discarded.Load(),
			})
		}
	}
	return all
}
