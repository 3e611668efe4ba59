package node

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/packet"
)

// balancers is what load balancers outside of the cluster ask this node, at sockets of its own: at healthCheckNodePorts about Services, at
// services.healthAddress about the node. Who follows kube-proxy's documentation asks at services.modeAddress how Services are proxied. The
// answers have the form of kube-proxy's (k8s.io/kubernetes, pkg/proxy/healthcheck).
type balancers struct {
	health, mode []netip.AddrPort // where that is asked; those of all addresses are unspecified
	checks       atomic.Pointer[map[netip.AddrPort]services.HealthCheck]
	stays        atomic.Bool               // nobody is about to take this node away
	updated      atomic.Pointer[time.Time] // when Services came into force last

	mu      sync.Mutex // guards the following
	healthy bool
	asked   time.Time // when it was found out
}

// Bounds of a question: who asks sends a few hundred bytes, and a connection is for one.
const (
	balancerPatience = 5 * time.Second
	balancerHeader   = 8 << 10
)

// lateAfter is how long a change of the cluster may wait to come into force before the node calls itself unwell, as long as kube-proxy
// takes for it by default (twice its syncPeriod of 30 s).
const lateAfter = time.Minute

// healthAge is how old an answer about the workers may be: whoever asks costs them no more than that.
const healthAge = time.Second

// proxyMode is how Services are proxied, by the word of former kube-proxies that did it in a process, too.
const proxyMode = "userspace"

// setHealthChecks takes what load balancers are told of Services.
func (n *Node) setHealthChecks(all []services.HealthCheck) {
	checks := make(map[netip.AddrPort]services.HealthCheck, len(all))
	for _, c := range all {
		checks[c.At] = c
	}
	n.balancers.checks.Store(&checks)
	n.ways.renew()
}

// serveBalancers serves who connects to a listener until it is closed.
func (n *Node) serveBalancers(l net.Listener) {
	s := http.Server{
		Handler: http.HandlerFunc(n.answerBalancer), ReadTimeout: balancerPatience, WriteTimeout: 2 * balancerPatience, MaxHeaderBytes: balancerHeader,
	}
	s.SetKeepAlivesEnabled(false)
	_ = s.Serve(l) // it is closed when it is not wanted any more
	_ = s.Close()
}

// answerBalancer answers by the port that was asked. What a Service has is asked at any path.
func (n *Node) answerBalancer(w http.ResponseWriter, r *http.Request) {
	to, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		http.NotFound(w, r)
		return
	}
	port := to.AddrPort().Port()
	switch {
	case hasPort(n.balancers.health, port) && r.URL.Path == "/healthz":
		n.answerProxyHealth(w, r, true)
	case hasPort(n.balancers.health, port) && r.URL.Path == "/livez":
		n.answerProxyHealth(w, r, false)
	case hasPort(n.balancers.mode, port) && r.URL.Path == "/proxyMode":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, proxyMode)
	default:
		n.answerHealthCheck(w, r, netip.AddrPortFrom(everyAddr(to.AddrPort().Addr().Unmap()), port))
	}
}

func hasPort(all []netip.AddrPort, port uint16) bool {
	for _, a := range all {
		if a.Port() == port {
			return true
		}
	}
	return false
}

// everyAddr returns the unspecified address of an address's family.
func everyAddr(of netip.Addr) netip.Addr {
	if of.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// serviceHealth is the body of an answer about a Service.
type serviceHealth struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

// answerHealthCheck answers 200 while ready endpoints of a Service are on this node, else 503.
func (n *Node) answerHealthCheck(w http.ResponseWriter, r *http.Request, at netip.AddrPort) {
	var check services.HealthCheck
	if all := n.balancers.checks.Load(); all != nil {
		check = (*all)[at]
	}
	if !check.At.IsValid() {
		http.NotFound(w, r) // it went a moment ago
		return
	}
	body := serviceHealth{LocalEndpoints: check.Local, ServiceProxyHealthy: n.proxyHealthy(r.Context())}
	body.Service.Namespace, body.Service.Name = check.Service.Namespace, check.Service.Name
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(check.Local))
	answerJSON(w, check.Local > 0 && body.ServiceProxyHealthy, body)
}

// familyHealth and proxyHealth are the body of an answer about the node.
type familyHealth struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

type proxyHealth struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"`
	Status       map[string]familyHealth `json:"status"`
}

// answerProxyHealth answers 200 while this node's Services are well, else 503; and 503 too, where that was asked, once the node is about to
// go (KEP-3836).
func (n *Node) answerProxyHealth(w http.ResponseWriter, r *http.Request, asksNode bool) {
	b, now := &n.balancers, time.Now()
	body := proxyHealth{CurrentTime: now, Healthy: n.proxyHealthy(r.Context()), Status: map[string]familyHealth{}}
	if at := b.updated.Load(); at != nil {
		body.LastUpdated = *at
	}
	for _, r := range n.config.PodCIDRs {
		name := "IPv6"
		if r.Addr().Is4() {
			name = "IPv4"
		}
		body.Status[name] = familyHealth{body.LastUpdated, body.Healthy}
	}
	ok := body.Healthy
	if asksNode {
		stays := b.stays.Load()
		body.NodeEligible = &stays
		ok = ok && stays
	}
	if ok {
		body.LastUpdated = now // for those who take a time that is long ago for a fault, as kube-proxy does
	}
	answerJSON(w, ok, body)
}

func answerJSON(w http.ResponseWriter, ok bool, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// proxyHealthy reports whether every worker comes round to its next batch, and no change of the cluster waits for long.
func (n *Node) proxyHealthy(ctx context.Context) bool {
	b := &n.balancers
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.asked) > healthAge {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), balancerPatience)
		defer cancel()
		waiting := n.cluster.pipeline.Waiting()
		b.healthy = n.stack.Healthy(ctx) == nil && (waiting.IsZero() || time.Since(waiting) < lateAfter)
		b.asked = time.Now()
	}
	return b.healthy
}

// ownListeners returns the listeners at which load balancers ask, each with what it is for.
func (b *balancers) ownListeners(sides []side) map[proxy.Listener]string {
	wanted := map[proxy.Listener]string{}
	add := func(at netip.AddrPort, s side, who string) {
		wanted[proxy.Listener{Addr: at, Proto: packet.TCP, Here: s.here, Own: true}] = who
	}
	for _, at := range b.mode {
		if hasAddr(sides[0], at.Addr()) {
			add(at, sides[0], modeField)
		}
	}
	for _, s := range sides {
		for _, at := range b.health {
			if hasAddr(s, at.Addr()) {
				add(at, s, healthField)
			}
		}
		if checks := b.checks.Load(); checks != nil {
			for at, c := range *checks {
				for _, a := range s.fronts {
					if a.Is4() == at.Addr().Is4() {
						add(netip.AddrPortFrom(a, at.Port()), s, c.Service.String())
					}
				}
			}
		}
	}
	return wanted
}

// hasAddr reports whether a side has an address, or one of its family if it is unspecified.
func hasAddr(s side, a netip.Addr) bool {
	if !a.IsUnspecified() {
		return len(ownOf([]netip.Addr{a}, s.interfaces)) > 0
	}
	for _, i := range s.interfaces {
		for _, own := range i.Addrs {
			if own.Prefix.Addr().Is4() == a.Is4() {
				return true
			}
		}
	}
	return false
}
