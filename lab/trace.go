package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxHops bounds a Trace.
const maxHops = 16

// traceWait is how long a Trace waits for each answer before it asks again.
const traceWait = time.Second

// tracePort is the first of the UDP ports that a Trace sends to, as traceroute(8) does: nobody listens there.
const tracePort = 33434

// traceFamily is what differs between ICMP (RFC 792) and ICMPv6 (RFC 4443).
type traceFamily struct {
	network, any   string
	proto          int // for icmp.ParseMessage
	request, reply icmp.Type
	header         func(quoted []byte) int // length of the IP header of a packet quoted in an error
}

var (
	trace4 = traceFamily{"ip4:icmp", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply,
		func(quoted []byte) int { return int(quoted[0]&0xf) * 4 }}
	trace6 = traceFamily{"ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply,
		func([]byte) int { return 40 }}
)

// Trace returns who answers to packets toward dst whose time to live is 1, 2, …: the routers on the way, and at last dst
// itself. Packets are UDP datagrams, or echo requests if network is "icmp".
func (n *Namespace) Trace(ctx context.Context, network string, dst netip.Addr) (hops []netip.Addr, err error) {
	t := tracer{n: n, dst: dst, family: trace4, udp: network == "udp", id: rand.IntN(1 << 16)}
	if dst.Is6() {
		t.family = trace6
	}
	err = n.Do(func() (err error) {
		t.conn, err = icmp.ListenPacket(t.family.network, t.family.any)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: trace %s: %w", n.name, dst, err)
	}
	defer t.conn.Close()
	for len(hops) == 0 || hops[len(hops)-1] != dst {
		hop, err := t.ask(ctx, len(hops)+1)
		if err != nil {
			return hops, fmt.Errorf("namespace %s: trace %s, hop %d: %w", n.name, dst, len(hops)+1, err)
		}
		if hops = append(hops, hop); len(hops) == maxHops {
			return hops, fmt.Errorf("namespace %s: trace %s: not within %d hops", n.name, dst, maxHops)
		}
	}
	return hops, nil
}

// tracer is a Trace under way.
type tracer struct {
	n      *Namespace
	dst    netip.Addr
	family traceFamily
	conn   *icmp.PacketConn
	udp    bool
	id     int // of echo requests
}

// ask sends packets with a time to live until one is answered.
func (t *tracer) ask(ctx context.Context, ttl int) (netip.Addr, error) {
	buf := make([]byte, 1<<16)
	for {
		if err := t.send(ctx, ttl); err != nil {
			return netip.Addr{}, err
		}
		for end := time.Now().Add(traceWait); ; {
			if ctx.Err() != nil {
				return netip.Addr{}, ctx.Err()
			}
			t.conn.SetReadDeadline(end)
			size, from, err := t.conn.ReadFrom(buf)
			if err != nil {
				break // in time no answer to this one
			}
			if !t.answers(buf[:size], ttl) {
				continue
			}
			a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
			return a.Unmap(), nil
		}
	}
}

// send sends a packet: its port, or its number, is that of the hop.
func (t *tracer) send(ctx context.Context, ttl int) error {
	if t.udp {
		c, err := t.n.Dial(ctx, "udp", netip.AddrPortFrom(t.dst, uint16(tracePort+ttl)).String())
		if err != nil {
			return err
		}
		defer c.Close()
		if t.dst.Is4() {
			err = ipv4.NewConn(c).SetTTL(ttl)
		} else {
			err = ipv6.NewConn(c).SetHopLimit(ttl)
		}
		if err == nil {
			_, err = c.Write([]byte("trace"))
		}
		return err
	}
	var err error
	if t.dst.Is4() {
		err = t.conn.IPv4PacketConn().SetTTL(ttl)
	} else {
		err = t.conn.IPv6PacketConn().SetHopLimit(ttl)
	}
	if err != nil {
		return err
	}
	request, err := (&icmp.Message{Type: t.family.request, Body: &icmp.Echo{ID: t.id, Seq: ttl}}).Marshal(nil)
	if err != nil {
		return err
	}
	_, err = t.conn.WriteTo(request, &net.IPAddr{IP: t.dst.AsSlice()})
	return err
}

// answers reports whether an ICMP message is about the packet of a hop.
func (t *tracer) answers(message []byte, ttl int) bool {
	m, err := icmp.ParseMessage(t.family.proto, message)
	if err != nil {
		return false
	}
	var quoted []byte
	switch body := m.Body.(type) {
	case *icmp.Echo:
		return !t.udp && m.Type == t.family.reply && body.ID == t.id && body.Seq == ttl
	case *icmp.DstUnreach:
		quoted = body.Data
	case *icmp.TimeExceeded:
		quoted = body.Data
	}
	if len(quoted) == 0 || len(quoted) < t.family.header(quoted)+8 {
		return false
	}
	head := quoted[t.family.header(quoted):]
	if t.udp {
		return int(binary.BigEndian.Uint16(head[2:])) == tracePort+ttl
	}
	return int(binary.BigEndian.Uint16(head[4:])) == t.id && int(binary.BigEndian.Uint16(head[6:])) == ttl
}
