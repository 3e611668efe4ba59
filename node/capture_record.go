package node

import (
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
)

var verdicts = map[tap.Verdict]string{
	tap.None: "no verdict", tap.Forwarded: capture.Forwarded, tap.Dropped: capture.Dropped, tap.Held: capture.Held, tap.Taken: capture.Taken, tap.Sent: capture.Sent,
}

// describe puts a tap's record into words, as c.record. data is borrowed.
func (c *nodeCapture) describe(r *tap.Record, data []byte) {
	d := &c.record
	*d = capture.Record{
		Time: r.Time, Interface: c.interfaceOf(r.At), Direction: capture.In, Verdict: verdicts[r.Verdict],
		Packets: r.Packets, To: c.placeName(r.To), From: c.placeName(r.From), Notes: notesOf(r), Length: r.Length, Data: data,
	}
	if r.Direction == tap.Out {
		d.Direction = capture.Out
	}
	if r.Verdict == tap.Dropped {
		d.Reason, d.To = r.Reason.String(), ""
	}
	if r.Answer != 0 {
		d.Answer = icmp.Kind(r.Answer).String()
	}
	if r.Route.IsValid() {
		d.Rule = "route " + r.Route.String()
	}
	if r.Message {
		d.Message = "path check of " + c.peerName(r.At.Peer)
	}
	if r.Version != 0 {
		d.Flow = flowOf(&r.Flow, r.HasPorts)
		if r.Translated {
			d.As = flowOf(&r.As, r.HasPorts)
		}
		if r.Flow.Proto() == packet.TCP {
			d.Flags = flagsOf(r.Flags)
		}
	}
}

func (c *nodeCapture) interfaceOf(at tap.Place) string {
	switch at.Layer {
	case tap.Pod:
		return at.Name
	case tap.Host:
		return c.host
	case tap.Tunnel:
		return tunnelInterface
	case tap.Outside:
		return outsideInterface
	}
	return gatewayInterface
}

// placeName names where a packet goes or comes from; "" for nowhere.
func (c *nodeCapture) placeName(at tap.Place) string {
	switch at.Layer {
	case tap.Pod:
		return "pod " + at.Name
	case tap.Host:
		return "the host"
	case tap.Gateway:
		return "the node"
	case tap.Outside:
		return "outside"
	case tap.Tunnel:
		return c.peerName(at.Peer)
	}
	return ""
}

func (c *nodeCapture) peerName(addr netip.Addr) string {
	if name := c.peers[addr]; name != "" {
		return fmt.Sprintf("peer %s (%v)", name, addr)
	}
	return fmt.Sprintf("peer %v", addr)
}

func notesOf(r *tap.Record) (notes []string) {
	add := func(is bool, format string, args ...any) {
		if is {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	add(r.GSO != packet.GSONone && r.Segment > 0, "super-packet of %d × %d bytes", (r.Payload+r.Segment-1)/max(1, r.Segment), r.Segment)
	add(r.Error, "ICMP error of this node")
	add(r.Late, "waited for its packet's first fragment")
	add(r.Bare, "without outer headers")
	return notes
}

// flowOf returns a flow as Flow.String does, without ports where there are none.
func flowOf(f *packet.Flow, ports bool) string {
	if ports {
		return f.String()
	}
	return fmt.Sprintf("%v %v -> %v", f.Proto(), f.Src(), f.Dst())
}

// flagsOf returns TCP's flags as tcpdump prints them.
func flagsOf(flags uint8) string {
	s := ""
	for _, f := range []struct {
		bit  uint8
		name string
	}{{packet.FIN, "F"}, {packet.SYN, "S"}, {packet.RST, "R"}, {packet.PSH, "P"}, {packet.ACK, "."}, {packet.URG, "U"}, {packet.ECE, "E"}, {packet.CWR, "W"}} {
		if flags&f.bit != 0 {
			s += f.name
		}
	}
	return s
}
