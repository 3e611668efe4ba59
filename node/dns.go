package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/dns"
)

var _ stack.Answerer = (*dns.Server)(nil)

// DNS configures the cluster's DNS, which every node answers itself for its own pods and host.
type DNS struct {
	// Off: another server answers at the DNS Service's address, for example CoreDNS in pods. Default false.
	Off bool `json:"off,omitempty"`
	// Addresses are those of the DNS Service, at most one of each family, as kubelet's clusterDNS has them. Default: the tenth address of each
	// of services.cidrs, as kubeadm gives it; without these there is no DNS.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Domain is the cluster's, as kubelet's clusterDomain has it. Default cluster.local.
	Domain string `json:"domain,omitempty"`
	// Upstreams are asked about all other names. Default: the servers that ResolvConf names.
	Upstreams []Upstream `json:"upstreams,omitempty"`
	// ResolvConf is the absolute path of a file as resolv.conf(5) has it, which is followed; "none": no other names are answered. Default
	// /etc/resolv.conf, and where that names servers on the loopback alone, as systemd-resolved has it,
	// /run/systemd/resolve/resolv.conf if it is there.
	ResolvConf string `json:"resolvConf,omitempty"`
	// StubDomains are domains about which others are asked.
	StubDomains []StubDomain `json:"stubDomains,omitempty"`
	// Policy is the order in which servers that are up are asked: random, round-robin or sequential. Default random.
	Policy string `json:"policy,omitempty"`
	// MaxConcurrent is how many questions may wait for upstreams; further ones get SERVFAIL. Default 1000.
	MaxConcurrent int `json:"maxConcurrent,omitempty"`
	// CacheEntries is how many answers of upstreams are kept; -1: none. Default 10000, which take about 2 MB.
	CacheEntries int `json:"cacheEntries,omitempty"`
	// ServeStale is how long an answer is given beyond its life if no upstream answers; a negative one: not at all. Default 1h.
	ServeStale Duration `json:"serveStale,omitempty"`
	// TTL is the time to live of the cluster's records. Default 5s.
	TTL Duration `json:"ttl,omitempty"`
	// Pods says which names of pods exist, as 10-244-1-5.default.pod.cluster.local: insecure (every address), or disabled. Default insecure.
	Pods string `json:"pods,omitempty"`
	// Autopath answers what pods ask along their search path with the first question. Default false.
	Autopath bool `json:"autopath,omitempty"`
}

// StubDomain is a domain about which servers of its own are asked.
type StubDomain struct {
	// Domain is the name that the domain's names end in. Required.
	Domain string `json:"domain"`
	// Servers are asked about it. Required.
	Servers []Upstream `json:"servers"`
}

// Upstream is the address and port of a DNS server. The port is 53 where it is left out.
type Upstream struct{ netip.AddrPort }

// dnsPort is where DNS servers listen (RFC 1035, section 4.2).
const dnsPort = 53

// UnmarshalText reads "192.168.254.1", "192.168.254.1:5353", "fd00:254::1" or "[fd00:254::1]:5353".
func (u *Upstream) UnmarshalText(b []byte) error {
	if a, err := netip.ParseAddr(string(b)); err == nil {
		u.AddrPort = netip.AddrPortFrom(a.Unmap(), dnsPort)
		return nil
	}
	p, err := netip.ParseAddrPort(string(b))
	u.AddrPort = netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	return err
}

// policies and podNames are the words of the configuration.
var (
	policies = map[string]dns.Policy{"": dns.Random, "random": dns.Random, "round-robin": dns.RoundRobin, "sequential": dns.Sequential}
	podNames = map[string]dns.PodNames{"": dns.PodsInsecure, "insecure": dns.PodsInsecure, "disabled": dns.PodsDisabled}
)

// setDefaults gives the DNS Service the addresses that kubeadm gives it.
func (d *DNS) setDefaults(services []netip.Prefix) {
	if len(d.Addresses) > 0 || d.Off {
		return
	}
	for _, r := range services {
		a := r.Masked().Addr()
		for range 10 {
			a = a.Next()
		}
		if r.Contains(a) {
			d.Addresses = append(d.Addresses, a)
		}
	}
}

// checkDNS checks the fields of dns.
func (c *Config) checkDNS() error {
	d := &c.DNS
	if !c.Kubernetes.used() && len(d.Addresses) > 0 {
		return errors.New("dns.addresses: the cluster's names come from Kubernetes; say where that is by kubernetes")
	}
	for i, a := range d.Addresses {
		switch {
		case !reachable(a):
			return fmt.Errorf("dns.addresses[%d]: %v is not an address like 10.96.0.10", i, a)
		case i > 1 || i == 1 && a.Is4() == d.Addresses[0].Is4():
			return fmt.Errorf("dns.addresses[%d]: %v is one too many, at most one address of each family is possible; leave it out", i, a)
		}
		for _, r := range c.podRanges() {
			if r.Contains(a) {
				return fmt.Errorf("dns.addresses[%d]: %v lies in %v, the range of a node's pods; name the DNS Service's address", i, a, r)
			}
		}
	}
	if _, ok := policies[d.Policy]; !ok {
		return fmt.Errorf("dns.policy: %q is not random, round-robin or sequential", d.Policy)
	}
	if _, ok := podNames[d.Pods]; !ok {
		return fmt.Errorf("dns.pods: %q is not insecure or disabled", d.Pods)
	}
	if d.ResolvConf != "" && d.ResolvConf != noResolvConf && !filepath.IsAbs(d.ResolvConf) {
		return fmt.Errorf("dns.resolvConf: %q is not an absolute path like %s; none does without", d.ResolvConf, defaultResolvConf)
	}
	if d.MaxConcurrent < 0 || d.MaxConcurrent > 1<<20 {
		return fmt.Errorf("dns.maxConcurrent: %d is not between 1 and %d", d.MaxConcurrent, 1<<20)
	}
	if d.CacheEntries < -1 || d.CacheEntries > 1<<24 {
		return fmt.Errorf("dns.cacheEntries: %d is not between 1 and %d; -1 keeps none", d.CacheEntries, 1<<24)
	}
	if !d.Off && len(d.Addresses) > 0 && c.EchoPort == dnsPort {
		return fmt.Errorf("echoPort: %d at the gateway addresses is the cluster's DNS; choose another one, or turn dns.off", c.EchoPort)
	}
	_, err := newServer(c, d.upstreams(), nil)
	return err
}

func (d *DNS) upstreams() (addrs []netip.AddrPort) {
	for _, u := range d.Upstreams {
		addrs = append(addrs, u.AddrPort)
	}
	return addrs
}

// newServer makes the server that a configuration describes. Errors name the field.
func newServer(c *Config, upstreams []netip.AddrPort, change func(*dns.Config)) (*dns.Server, error) {
	d := &c.DNS
	zone, err := dns.NewZone(dns.ZoneConfig{
		Domain: d.Domain, Addresses: d.Addresses, Reverse: slices.Concat(c.Services.CIDRs, c.PodCIDRs, c.ClusterCIDRs),
		Pods: podNames[d.Pods], TTL: time.Duration(d.TTL),
	})
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	conf := dns.Config{
		Zone: zone, Upstreams: upstreams, Policy: policies[d.Policy], MaxConcurrent: d.MaxConcurrent, CacheEntries: d.CacheEntries,
		ServeStale: time.Duration(d.ServeStale), Stubs: map[string][]netip.AddrPort{},
	}
	for i, stub := range d.StubDomains {
		if _, twice := conf.Stubs[stub.Domain]; twice || stub.Domain == "" {
			return nil, fmt.Errorf("dns.stubDomains[%d].domain: %q is missing or there twice; each domain is named once", i, stub.Domain)
		}
		conf.Stubs[stub.Domain] = nil
		for _, u := range stub.Servers {
			conf.Stubs[stub.Domain] = append(conf.Stubs[stub.Domain], u.AddrPort)
		}
	}
	if change != nil {
		change(&conf)
	}
	s, err := dns.New(conf)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	return s, nil
}

// nodeDNS is the cluster's DNS on this node. Its server is nil where there is none.
type nodeDNS struct {
	server     *dns.Server
	zone       *dns.Zone // as it is without a cluster's objects
	addrs      []netip.Addr
	resolvConf resolvConf
	namespaces atomic.Pointer[map[netip.Addr]string] // of the pods that the CNI plugin attaches
}

// openDNS makes the server. Addresses of a family that pods do not have are left out: nobody could ask there.
func (n *Node) openDNS() error {
	d := &n.config.DNS
	if d.Off {
		return nil
	}
	for _, a := range d.Addresses {
		if slices.ContainsFunc(n.config.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }) {
			n.dns.addrs = append(n.dns.addrs, a)
		}
	}
	if len(n.dns.addrs) == 0 {
		return nil
	}
	upstreams := d.upstreams()
	if len(upstreams) == 0 {
		n.dns.resolvConf = newResolvConf(d.ResolvConf, n.dns.addrs)
		upstreams = n.dns.resolvConf.read()
	}
	if len(upstreams) == 0 {
		n.log.Info("no dns server is known for names outside of the cluster; they are not answered", "resolvConf", n.dns.resolvConf.paths)
	}
	var err error
	n.dns.server, err = newServer(&n.config, upstreams, func(c *dns.Config) {
		c.Logger, n.dns.zone = n.log, c.Zone
		if n.config.OutsideSockets != "" {
			c.Dialer = dialer{&n.ways}
		}
		if d.Autopath {
			c.Autopath = n.namespaceOf
		}
	})
	return err
}

// answerer returns what answers queries in the worker; nil if nothing does.
func (n *Node) answerer() stack.Answerer {
	if n.dns.server == nil {
		return nil
	}
	return n.dns.server
}

// runDNS serves the DNS Service's addresses through the netstack, for what the workers do not answer at once and for TCP, until ctx ends.
// Once it has returned nobody is refused there. The gateway addresses answer, too: pods of nodes without a daemon are led there by endpoints of the
// DNS Service, for its own address leads to no node in particular.
func (n *Node) runDNS(ctx context.Context, g *errgroup.Group) {
	s := n.dns.server
	if s == nil {
		return
	}
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return n.followResolvConf(ctx) })
	for _, a := range slices.Concat(n.dns.addrs, n.gateways()) {
		at := netip.AddrPortFrom(a, dnsPort)
		c, packetErr := n.netstack.ListenPacket(at)
		l, err := n.netstack.Listen(at)
		g.Go(func() error {
			if packetErr != nil {
				return whileRunning(ctx, fmt.Errorf("serve dns: %w", packetErr))
			}
			defer c.Close()
			return whileRunning(ctx, s.ServeUDP(ctx, c))
		})
		g.Go(func() error {
			if err != nil {
				return whileRunning(ctx, fmt.Errorf("serve dns: %w", err))
			}
			return whileRunning(ctx, s.ServeTCP(ctx, l))
		})
	}
}

// whileRunning returns an error unless ctx has ended: then the netstack may have closed its sockets first.
func whileRunning(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// knowNamespaces notes whose pods have which addresses. The CNI server calls it when one comes or goes.
func (n *Node) knowNamespaces(change func(map[netip.Addr]string)) {
	if n.dns.server == nil || !n.config.DNS.Autopath {
		return
	}
	for {
		old := n.dns.namespaces.Load()
		next := map[netip.Addr]string{}
		if old != nil {
			next = maps.Clone(*old)
		}
		if change(next); n.dns.namespaces.CompareAndSwap(old, &next) {
			return
		}
	}
}

// attached and detached note a pod that has come or gone.
func (n *Node) attached(l ipam.Lease) {
	n.knowNamespaces(func(m map[netip.Addr]string) {
		for _, a := range l.Addrs {
			m[a] = l.Pod.Namespace
		}
	})
}

func (n *Node) detached(l ipam.Lease) {
	n.knowNamespaces(func(m map[netip.Addr]string) {
		for _, a := range l.Addrs {
			delete(m, a)
		}
	})
}

// namespaceOf returns the namespace of the pod of this node that has the address. It takes no lock.
func (n *Node) namespaceOf(a netip.Addr) (string, bool) {
	m := n.dns.namespaces.Load()
	if m == nil {
		return "", false
	}
	namespace, ok := (*m)[a]
	return namespace, ok && namespace != ""
}

// DNSStatus is what is known of the cluster's DNS on this node.
type DNSStatus struct {
	Addresses []netip.Addr `json:"addresses"`
	Domain    string       `json:"domain"` // the cluster's
	dns.Stats
}

// dnsStatus returns nil where this node answers no DNS.
func (n *Node) dnsStatus() *DNSStatus {
	if n.dns.server == nil {
		return nil
	}
	return &DNSStatus{n.dns.addrs, cmp.Or(n.config.DNS.Domain, dns.DefaultDomain), n.dns.server.Stats()}
}
