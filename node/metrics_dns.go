package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/middleway-net/middleway/stack/dns"
)

// dnsCollector reads the counters of the cluster's DNS; there are none where this node answers no DNS.
type dnsCollector struct{ n *Node }

var (
	descDNSAnswers    = desc("dns_answers_total", "Answers to DNS queries, by the question's type and the response code.", "type", "rcode")
	descDNSHits       = desc("dns_cache_hits_total", "DNS answers of upstreams that were at hand.")
	descDNSMisses     = desc("dns_cache_misses_total", "DNS questions that had to wait for an upstream.")
	descDNSStale      = desc("dns_stale_answers_total", "DNS answers of upstreams that were taken up again beyond their life, since no upstream answered.")
	descDNSPrefetches = desc("dns_prefetches_total", "DNS answers of upstreams that were asked anew before the end of their life.")
	descDNSEvictions  = desc("dns_cache_evictions_total", "DNS answers of upstreams given up for others.")
	descDNSRefused    = desc("dns_busy_total", "DNS questions not asked upstream since too many were waiting.")
	descDNSUp         = desc("dns_upstream_up", "1 while the upstream answers and does not lead back here, else 0.", "upstream", "domain")
	descDNSQueries    = desc("dns_upstream_queries_total", "DNS queries sent to the upstream.", "upstream", "domain")
	descDNSErrors     = desc("dns_upstream_errors_total", "DNS queries to which the upstream has not answered, or with no answer.", "upstream", "domain")
	descDNSSeconds    = desc("dns_upstream_seconds_total", "Time that the upstream took for its answers, of all of them.", "upstream", "domain")
	descDNSAnswered   = desc("dns_upstream_answers_total", "DNS queries that the upstream has answered.", "upstream", "domain")
)

// Describe tells every metric.
func (c dnsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descDNSAnswers, descDNSHits, descDNSMisses, descDNSStale, descDNSPrefetches, descDNSEvictions, descDNSRefused,
		descDNSUp, descDNSQueries, descDNSErrors, descDNSSeconds, descDNSAnswered,
	} {
		ch <- d
	}
}

// Collect reads every metric.
func (c dnsCollector) Collect(ch chan<- prometheus.Metric) {
	if c.n.dns.server == nil {
		return
	}
	st := c.n.dns.server.Stats()
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for qtype, codes := range st.Answers {
		for code, n := range codes {
			count(descDNSAnswers, float64(n), qtype, code)
		}
	}
	count(descDNSHits, float64(st.CacheHits))
	count(descDNSMisses, float64(st.CacheMisses))
	count(descDNSStale, float64(st.Stale))
	count(descDNSPrefetches, float64(st.Prefetches))
	count(descDNSEvictions, float64(st.Evictions))
	count(descDNSRefused, float64(st.Busy))
	for _, u := range st.Upstreams {
		labels := []string{u.Address.String(), u.Domain}
		up := 0.0
		if u.State == dns.UpstreamUp {
			up = 1
		}
		ch <- gaugeOf(descDNSUp, up, labels...)
		count(descDNSQueries, float64(u.Queries), labels...)
		count(descDNSErrors, float64(u.Errors), labels...)
		count(descDNSSeconds, time.Duration(u.Latency).Seconds(), labels...)
		count(descDNSAnswered, float64(u.Answered), labels...)
	}
}
