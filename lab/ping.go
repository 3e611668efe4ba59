package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pingFamily is what differs between ICMP (RFC 792) and ICMPv6 (RFC 4443).
type pingFamily struct {
	network, any   string
	proto          int // for icmp.ParseMessage
	request, reply icmp.Type
	header         func(quoted []byte) int // length of the IP header of a packet quoted in an error
}

var (
	ping4 = pingFamily{"ip4:icmp", "0.0.0.0", 1, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply,
		func(quoted []byte) int { return int(quoted[0]&0xf) * 4 }}
	ping6 = pingFamily{"ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply,
		func([]byte) int { return 40 }}
)

// Ping sends one echo request with size bytes of payload from inside the namespace and waits for its reply until ctx
// ends; then the error is ctx's. An ICMP error about the request is returned as an error at once.
func (n *Namespace) Ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	rtt, err := n.ping(ctx, dst, size)
	if err != nil {
		return 0, fmt.Errorf("namespace %s: ping %s: %w", n.name, dst, err)
	}
	return rtt, nil
}

func (n *Namespace) ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	family := ping4
	if dst.Is6() {
		family = ping6
	}
	var conn *icmp.PacketConn
	err := n.Do(func() (err error) {
		conn, err = icmp.ListenPacket(family.network, family.any)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	// A raw socket sees the replies to all pings of the namespace: the random id and number tell ours.
	echo := &icmp.Echo{ID: rand.IntN(1 << 16), Seq: rand.IntN(1 << 16), Data: make([]byte, size)}
	request, err := (&icmp.Message{Type: family.request, Body: echo}).Marshal(nil) // the kernel sums ICMPv6
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if _, err := conn.WriteTo(request, &net.IPAddr{IP: dst.AsSlice(), Zone: dst.Zone()}); err != nil {
		return 0, err
	}
	buf := make([]byte, size+128)
	for {
		got, _, err := conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, err
		}
		if done, err := family.answers(buf[:got], echo); done {
			return time.Since(start), err
		}
	}
}

// answers reports whether an ICMP message is the reply to echo or, with an error, an ICMP error about it.
func (f pingFamily) answers(message []byte, echo *icmp.Echo) (bool, error) {
	m, err := icmp.ParseMessage(f.proto, message)
	if err != nil {
		return false, nil
	}
	var quoted []byte
	switch body := m.Body.(type) {
	case *icmp.Echo:
		return m.Type == f.reply && body.ID == echo.ID && body.Seq == echo.Seq && len(body.Data) == len(echo.Data), nil
	case *icmp.DstUnreach:
		quoted = body.Data
	case *icmp.TimeExceeded:
		quoted = body.Data
	case *icmp.PacketTooBig:
		quoted = body.Data
	}
	if len(quoted) == 0 || len(quoted) < f.header(quoted)+8 {
		return false, nil
	}
	head := quoted[f.header(quoted):]
	if int(binary.BigEndian.Uint16(head[4:])) != echo.ID || int(binary.BigEndian.Uint16(head[6:])) != echo.Seq {
		return false, nil
	}
	return true, errors.New(fmt.Sprint(m.Type, " (code ", m.Code, ")"))
}
