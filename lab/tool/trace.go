package tool

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// TraceConfig describes the search for the routers on the way to an address.
type TraceConfig struct {
	// Hops is the largest TTL tried. Default 30.
	Hops int
	// Probes is the number of echo requests with each TTL. Default 3.
	Probes int
	// Wait is how long each is waited for. Default 1 s.
	Wait time.Duration
}

// Hop is what came back for one TTL.
type Hop struct {
	TTL    int     `json:"ttl"`
	Probes []Probe `json:"probes"`
}

// Probe is one request of a Hop. Where nothing came back, From is not valid.
type Probe struct {
	From  netip.Addr `json:"from,omitzero"`
	RTT   Millis     `json:"rttMs,omitzero"`
	Error string     `json:"error,omitzero"` // any but that the TTL was used up
}

// String is a line like " 1  10.244.1.1  0.123 ms  0.045 ms  *".
func (h Hop) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%2d", h.TTL)
	var last netip.Addr
	for _, p := range h.Probes {
		if p.From.IsValid() && p.From != last {
			fmt.Fprintf(&b, "  %v", p.From)
			last = p.From
		}
		switch {
		case p.From.IsValid():
			fmt.Fprintf(&b, "  %v", p.RTT)
			if p.Error != "" {
				fmt.Fprintf(&b, " (%s)", p.Error)
			}
		case p.Error != "":
			fmt.Fprintf(&b, "  %s", p.Error)
		default:
			b.WriteString("  *")
		}
	}
	return b.String()
}

// Trace finds the routers on the way by requests with growing TTL, as traceroute does, and tells of each hop as it is known.
// It ends at the address itself, where somebody says that it cannot be reached, after c.Hops, or with ctx. It reports whether
// the address replied.
func (p *Pinger) Trace(ctx context.Context, c TraceConfig, tell func(Hop)) (reached bool, err error) {
	if c.Hops <= 0 {
		c.Hops = 30
	}
	if c.Probes <= 0 {
		c.Probes = 3
	}
	c.Wait = orDefault(c.Wait, time.Second)
	for ttl := 1; ttl <= c.Hops; ttl++ {
		if err := p.socket.setTTL(ttl); err != nil {
			return false, err
		}
		hop, last := Hop{TTL: ttl}, false
		for range c.Probes {
			probe, replied, passed := p.probe(ctx, c.Wait)
			if ctx.Err() != nil {
				return false, nil
			}
			hop.Probes = append(hop.Probes, probe)
			reached, last = reached || replied, last || !passed
		}
		tell(hop)
		if last {
			return reached, nil
		}
	}
	return false, nil
}

// probe sends one request. It passed where a router beyond may still be found.
func (p *Pinger) probe(ctx context.Context, wait time.Duration) (probe Probe, replied, passed bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	a, err := p.Ask(ctx)
	probe = Probe{From: a.From, RTT: a.RTT}
	var icmp *ICMPError
	switch {
	case err == nil:
		return probe, true, false
	case errors.As(err, &icmp) && icmp.TimeExceeded():
		return probe, false, true
	case errors.As(err, &icmp):
		probe.Error = icmp.Words()
		return probe, false, false
	case ctx.Err() != nil:
		return probe, false, true
	}
	probe.Error = err.Error()
	return probe, false, false
}
