package dns

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// DefaultServeStale is how long answers are given beyond their life (RFC 8767, section 5: a day to three; an hour is CoreDNS's).
const DefaultServeStale = time.Hour

// clientPart: one client may have the clientPart'th part of the questions that wait.
const clientPart = 4

// Config configures a Server.
type Config struct {
	// Zone is the cluster's zone as NewZone made it. Its names get ServFail until SetZone has told what is in it: a name must not be said
	// not to exist before it is known which do. Required.
	Zone *Zone
	// Upstreams are asked about names that are not the cluster's. Default: nobody is; such questions get ServFail.
	Upstreams []netip.AddrPort
	// Stubs are domains about which others are asked.
	Stubs map[string][]netip.AddrPort
	// Policy is the order in which Upstreams, and those of a stub domain, are asked. Default Random.
	Policy Policy
	// MaxConcurrent is how many questions may wait for upstreams, a quarter of them one client's; further ones get ServFail. Default
	// DefaultMaxConcurrent.
	MaxConcurrent int
	// Dialer opens the sockets to upstreams. Default: a net.Dialer.
	Dialer Dialer
	// CacheEntries is how many answers of upstreams are kept, rounded up to a power of two; -1: none. Default DefaultCacheEntries.
	CacheEntries int
	// ServeStale is how long an answer is given beyond its life if no upstream answers (RFC 8767); negative: not at all. Default
	// DefaultServeStale.
	ServeStale time.Duration
	// Autopath, if there is one, tells the namespace of the pod that has an address. Names that such a pod's resolver has completed by the
	// first domain of its search path, and that do not exist, are answered as its further tries would be. It is called on the way
	// that does not wait. An address that has changed hands without its being told gets another namespace's answers.
	Autopath func(netip.Addr) (namespace string, ok bool)
	// Logger takes state changes. Default: none.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dialer == nil {
		c.Dialer = &net.Dialer{}
	}
	c.MaxConcurrent = cmp.Or(c.MaxConcurrent, DefaultMaxConcurrent)
	c.CacheEntries = cmp.Or(c.CacheEntries, DefaultCacheEntries)
	c.ServeStale = max(0, cmp.Or(c.ServeStale, DefaultServeStale))
}
