package main

import (
	"fmt"
	"io"
	"time"

	"github.com/middleway-net/middleway/node"
)

// printDNS prints what there is to say of the cluster's DNS.
func printDNS(w io.Writer, st *node.DNSStatus) {
	if st == nil {
		return
	}
	var answers uint64
	for _, codes := range st.Answers {
		for _, n := range codes {
			answers += n
		}
	}
	fmt.Fprintf(w, "dns       %s, %d answers, cache %d hits %d misses\n", joined(st.Addresses), answers, st.CacheHits, st.CacheMisses)
	if len(st.Upstreams) == 0 {
		fmt.Fprintf(w, "upstream  none is known: names outside of the cluster get SERVFAIL; name some in dns.upstreams\n")
	}
	for _, u := range st.Upstreams {
		about := ""
		if u.Domain != "." {
			about = " for " + u.Domain
		}
		switch {
		case u.Problem != "":
			fmt.Fprintf(w, "upstream  %v%s %s\n", u.Address, about, u.Problem)
		case u.Answered > 0:
			fmt.Fprintf(w, "upstream  %v%s answers, in %v on average\n", u.Address, about, (time.Duration(u.Latency) / time.Duration(u.Answered)).Round(10*time.Microsecond))
		default:
			fmt.Fprintf(w, "upstream  %v%s has not been asked yet\n", u.Address, about)
		}
	}
}
