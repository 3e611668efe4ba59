package stack

import (
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/packet"
)

// tables is an immutable snapshot of what decides about packets. A worker loads it once a batch.
type tables struct {
	generation  uint32
	fib         *fib.Table
	attachments []*attachment // by number; nil where there is none
	host        *attachment   // the one among them that is the host's, or nil
	nodeAddrs   []netip.Addr
	awaited     bool // further routes, see Config.AwaitRoutes
}

// attachment is a pod's interface as the workers see it. It does not change after it was published.
type attachment struct {
	id      uint32
	name    string
	addrs   []netip.Addr
	keys    []packet.AddrKey
	queues  []Queue
	device  io.Closer
	host    bool
	outside bool // it is not a device's, but the way out of the cluster
	lost    bool // its device is gone: it has no addresses and no queues any more
	tcp     bool // the device takes super-packets of TCP
	udp     bool // and of UDP
}

// kind is the key of the attachment's name in logs.
func (a *attachment) kind() string {
	if a.host {
		return "host"
	}
	return "pod"
}

// merges reports whether packets of a protocol are worth merging for the device.
func (a *attachment) merges(p *packet.Parsed) bool {
	return p.Proto == packet.TCP && a.tcp || p.Proto == packet.UDP && a.udp
}

// owns is the source check: a pod sends from its own addresses only.
func (a *attachment) owns(f *packet.Flow) bool {
	for _, k := range a.keys {
		if f.From(k) {
			return true
		}
	}
	return false
}

// queue returns the queue on which worker w writes. The kernel answers on the queue on which a flow was written last (it
// learns the flow's hash, drivers/net/tun.c), so that both directions of a flow stay with one worker.
func (a *attachment) queue(w int) Queue { return a.queues[w%len(a.queues)] }

// publish makes tables of the given attachments and swaps them in. Precondition: s.mu is held, or nothing runs yet.
func (s *Stack) publish(attachments []*attachment) error {
	nodeAddrs := s.tables.Load().nodeAddrs
	routes := make([]fib.Route, 0, len(s.inside)+len(s.routes))
	for _, r := range s.inside {
		routes = append(routes, fib.Route{Prefix: r, Destination: fib.Destination{Kind: fib.Inside}})
	}
	routes = append(routes, s.routes...)
	for _, r := range s.podCIDRs {
		routes = append(routes, fib.Route{Prefix: r, Destination: fib.Destination{Kind: fib.Vacant}})
	}
	host := hostAmong(attachments)
	toHost := fib.Destination{Kind: fib.Inside}
	if host != nil {
		toHost = fib.Destination{Kind: fib.Attachment, Attachment: host.id}
	}
	for _, a := range s.hostAddrs {
		routes = append(routes, hostRoute(a, toHost))
	}
	for _, a := range nodeAddrs {
		routes = append(routes, hostRoute(a, fib.Destination{Kind: fib.Node}))
	}
	for _, att := range attachments {
		if att == nil {
			continue
		}
		for _, a := range att.addrs {
			routes = append(routes, hostRoute(a, fib.Destination{Kind: fib.Attachment, Attachment: att.id}))
		}
	}
	table, err := fib.Compile(routes)
	if err != nil {
		return err
	}
	s.tables.Store(&tables{
		generation: s.flows.NextGeneration(), fib: table, attachments: attachments, host: host, nodeAddrs: nodeAddrs,
		awaited: s.awaited,
	})
	return nil
}

func hostAmong(attachments []*attachment) *attachment {
	for _, a := range attachments {
		if a != nil && a.host && !a.lost {
			return a
		}
	}
	return nil
}

func hostRoute(a netip.Addr, d fib.Destination) fib.Route {
	return fib.Route{Prefix: netip.PrefixFrom(a, a.BitLen()), Destination: d}
}

// addLocked publishes a new attachment.
func (s *Stack) addLocked(a Attachment) (*attachment, error) {
	t := s.tables.Load()
	if len(a.Queues) == 0 || len(a.Addrs) == 0 {
		return nil, fmt.Errorf("attach %s: a device with a queue and at least one address are needed", a.Name)
	}
	if a.Host && t.host != nil {
		return nil, fmt.Errorf("attach %s: the host is attached already, as %s", a.Name, t.host.name)
	}
	att := &attachment{
		name: a.Name, addrs: a.Addrs, queues: a.Queues, device: a.Device, host: a.Host,
		tcp: a.Queues[0].Takes(packet.GSOTCP4), udp: a.Queues[0].Takes(packet.GSOUDP),
	}
	for _, addr := range a.Addrs {
		if has := t.fib.Lookup(addr); has.Kind == fib.Attachment {
			return nil, fmt.Errorf("attach %s: address %v belongs to %s", a.Name, addr, t.attachments[has.Attachment].name)
		} else if has.Kind == fib.Node {
			return nil, fmt.Errorf("attach %s: address %v belongs to the node", a.Name, addr)
		}
		att.keys = append(att.keys, packet.KeyOf(addr))
	}
	attachments := slices.Clone(t.attachments)
	slot := slices.Index(attachments, nil)
	if slot < 0 {
		slot = len(attachments)
		attachments = append(attachments, nil)
	}
	att.id = uint32(slot)
	attachments[slot] = att
	return att, s.publish(attachments)
}

// removeLocked publishes tables with another attachment, or none, in place of att, and returns when no worker uses att any more.
func (s *Stack) removeLocked(att, by *attachment) {
	attachments := slices.Clone(s.tables.Load().attachments)
	attachments[att.id] = by
	if err := s.publish(attachments); err != nil {
		panic(err) // routes that compiled before compile without one
	}
	for _, w := range s.workers {
		_ = w.call(func() error { w.unwatch(att); return nil })
	}
	s.local.settle()
}
