package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
)

// DefaultMaxConns bounds a node's TCP connections with the outside.
const DefaultMaxConns = 16 << 10

// dialTimeout bounds how long a connection is sought: as long as Linux asks by default (tcp_syn_retries, tcp(7)).
const dialTimeout = 127 * time.Second

// A peer in the cluster that is gone without a word is noticed within 20 s.
const (
	keepAliveIdle     = 10 * time.Second
	keepAliveInterval = 3 * time.Second
	keepAliveCount    = 3
)

// A peer outside that is gone without a word is given up after 16 minutes of silence, as long as Linux sends data again (tcp_retries2,
// tcp(7)): an idle connection survives what one in use does. Go's default would end it after 150 s. The user timeout (RFC 5482) stays off,
// which Linux applies to a client that is there and does not read.
var hostKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 75 * time.Second, Count: 9}

// TCPStats are counters of TCP, of egress and listeners together.
type TCPStats struct {
	// Open are the connections that are open, or wait for their destination.
	Open int `json:"open"`
	// Joined are those since the start that came about, of which Reset did not end by both sides' closing.
	Joined uint64 `json:"joined"`
	Reset  uint64 `json:"reset"`
	// Refused are those that their destination refused. Failed found nobody, or had no socket. Limited had no room beside the others
	// (Config.MaxConns).
	Refused uint64 `json:"refused"`
	Failed  uint64 `json:"failed"`
	Limited uint64 `json:"limited"`
	// AcceptErrors are the times that a listener could not take who waits there: no descriptor is free, for example.
	AcceptErrors uint64 `json:"acceptErrors"`
}

// tcpCounters are what TCPStats is read from.
type tcpCounters struct{ joined, reset, refused, failed, limited, acceptErrors atomic.Uint64 }

// tcpProxy joins TCP connections.
type tcpProxy struct {
	p       *Proxy
	started time.Time
	ctx     context.Context // of run; clients come only while it runs
	joining sync.WaitGroup
	relays  relays
	recheck chan struct{} // has room for one

	mu          sync.Mutex
	closed      bool
	pods        map[netip.Addr]int   // how many connections each client has
	conns       map[*joined]struct{} // all that are open
	errors      icmp.Limit
	connections atomic.Int64 // open ones
	count       tcpCounters

	clients atomic.Int64 // of listeners
	// What a person was told of: no room, no descriptor to accept with, no socket to dial with.
	full, unaccepted, noSocket warned
}

func (t *tcpProxy) init(p *Proxy) error {
	t.p, t.started, t.recheck = p, time.Now(), make(chan struct{}, 1)
	t.pods, t.conns = map[netip.Addr]int{}, map[*joined]struct{}{}
	t.closed = true
	t.relays.init()
	return p.config.Netstack.Spoof()
}

// open takes clients from now on, whose connections live no longer than ctx.
func (t *tcpProxy) open(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ctx, t.closed = ctx, false
}

// run is called after open, with its context.
func (t *tcpProxy) run(ctx context.Context) error {
	if _, own := t.p.config.Sockets.(ownSockets); !own {
		t.joining.Go(func() { t.relays.open(ctx, t.p.config.Sockets) })
	}
	t.watch(ctx)
	t.mu.Lock()
	t.closed = true
	for j := range t.conns {
		j.abort()
	}
	t.mu.Unlock()
	t.joining.Wait()
	return nil
}

// enter counts a connection of a client, and returns the context in which it lives; ok is false if there is no room for it. Who enters
// leaves.
func (t *tcpProxy) enter(client netip.Addr) (ctx context.Context, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false
	}
	if most := t.p.config.MaxConns; int(t.connections.Load())+t.pods[client] >= most {
		t.count.limited.Add(1)
		if t.full.due() {
			t.p.log.Warn("too many TCP connections with the outside: one was dropped", "client", client, "connections", t.pods[client], "all", t.connections.Load(), "most", most)
		}
		return nil, false
	}
	t.pods[client]++
	t.connections.Add(1)
	t.joining.Add(1)
	return t.ctx, true
}

func (t *tcpProxy) leave(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pods[client]--; t.pods[client] == 0 {
		delete(t.pods, client)
	}
	t.connections.Add(-1)
	t.joining.Done()
}

// countFailure counts a connection that did not come about, and returns what the kernel or the netstack has said, 0 if nothing.
func (t *tcpProxy) countFailure(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno); isRefusal(errno) {
		t.count.refused.Add(1)
	} else {
		t.count.failed.Add(1)
	}
	return errno
}

func isRefusal(errno unix.Errno) bool {
	return errno == unix.ECONNREFUSED || errno == unix.ECONNRESET
}

// tell sends the sender of a packet an ICMP error.
func (t *tcpProxy) tell(b []byte, e icmp.Error) {
	var h packet.Parsed
	if packet.Parse(b, &h) != packet.Kept {
		return
	}
	from := t.p.config.Netstack.Gateway(h.Version == 4)
	t.mu.Lock()
	ok := from.IsValid() && icmp.MayAnswer(b, &h, e.Kind) && t.errors.Allow(time.Since(t.started))
	t.mu.Unlock()
	if ok {
		out := make([]byte, icmp.MaxLen)
		t.p.inject(packet.Offload{}, out[:e.Build(out, from, &h, b, nil)])
	}
}

// ingress connects a client of a listener with the address that it asked for.
func (t *tcpProxy) ingress(host *net.TCPConn) {
	defer t.clients.Add(-1)
	from, to := addrPortOf(host.RemoteAddr()), addrPortOf(host.LocalAddr())
	ctx, ok := t.enter(from.Addr())
	if !ok {
		reset(host)
		return
	}
	defer t.leave(from.Addr())
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	pod, err := t.p.config.Netstack.DialFrom(ctx, from, to)
	cancel()
	if err != nil {
		t.countFailure(err)
		reset(host)
		return
	}
	t.join(&joined{client: from.Addr(), pod: pod, host: host})
}

// forget resets the connections of a pod to the outside, and of clients to it.
func (t *tcpProxy) forget(pod netip.Addr) {
	t.relays.forget(pod)
	t.mu.Lock()
	defer t.mu.Unlock()
	for j := range t.conns {
		if t.isOf(j, pod) {
			j.abort()
		}
	}
}

// isOf reports whether a pod is one end of a connection.
func (t *tcpProxy) isOf(j *joined, pod netip.Addr) bool {
	if j.client == pod {
		return true
	}
	at, _ := t.p.backend(j.pod.Local(), j.pod.Remote())
	return at == pod
}

func (t *tcpProxy) stats() TCPStats {
	return TCPStats{
		Open: int(t.connections.Load()), Joined: t.count.joined.Load(), Reset: t.count.reset.Load(), Refused: t.count.refused.Load(),
		Failed: t.count.failed.Load(), Limited: t.count.limited.Load(), AcceptErrors: t.count.acceptErrors.Load(),
	}
}

func addrPortOf(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// reset closes a connection by a reset.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
