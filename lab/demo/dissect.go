package demo

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Layer is one header of a frame, or its payload.
type Layer struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
	Words string `json:"text"` // what stands in it, in one or a few lines
	By    string `json:"by"`   // who made it

	addrs []netip.Addr // source and destination of an IP header
}

// Who makes a layer.
const (
	byLink   = "link"   // the network between the nodes
	byKernel = "kernel" // the node's, for the daemon's UDP socket
	byDaemon = "daemon"
	byPod    = "pod" // the pod's kernel and program
)

// dissect takes a frame of the underlay apart: Ethernet, IP, UDP, VXLAN, Ethernet, IP, TCP, data. After an error the layers
// up to there are right.
func dissect(frame []byte) ([]Layer, error) {
	if len(frame) < vxlan.EthernetLen {
		return nil, errors.New("shorter than an Ethernet header")
	}
	d := dissection{layers: []Layer{ethernet(frame, byLink)}}
	err := d.outer(frame[vxlan.EthernetLen:])
	return d.layers, err
}

type dissection struct{ layers []Layer }

func (d *dissection) add(l Layer) { d.layers = append(d.layers, l) }

func ethernet(b []byte, by string) Layer {
	words := fmt.Sprintf("%v → %v", vxlan.MAC(b[6:12]), vxlan.MAC(b[:6]))
	return Layer{Name: "Ethernet", Bytes: vxlan.EthernetLen, Words: words, By: by}
}

// outer reads the datagram between the nodes.
func (d *dissection) outer(b []byte) error {
	p, err := d.ip(b, byKernel)
	if err != nil {
		return err
	}
	if p.Proto != packet.UDP || p.Fragment {
		return fmt.Errorf("%v is not a datagram between nodes", p.Flow)
	}
	d.add(Layer{Name: "UDP", Bytes: p.Payload - p.L4, Words: ports(p), By: byKernel})
	b = b[p.Payload:p.Len]
	var h vxlan.Header
	if err := vxlan.Decode(b, &h); err != nil {
		return err
	}
	words := fmt.Sprintf("VNI %d", h.VNI)
	if h.Remote.Start != 0 {
		words += ", inner checksum left to the receiver"
	}
	d.add(Layer{Name: "VXLAN", Bytes: vxlan.HeaderLen, Words: words, By: byDaemon})
	d.add(ethernet(b[vxlan.HeaderLen:], byDaemon))
	return d.inner(b[vxlan.Overhead:])
}

// inner reads the pod's packet.
func (d *dissection) inner(b []byte) error {
	p, err := d.ip(b, byPod)
	if err != nil {
		return err
	}
	rest := b[p.L4:p.Len]
	if p.Proto == packet.TCP && !p.Fragment {
		d.add(Layer{Name: "TCP", Bytes: p.Payload - p.L4, Words: ports(p) + ", " + flags(p.Flags), By: byPod})
		rest = b[p.Payload:p.Len]
	}
	if len(rest) > 0 {
		d.add(data(rest))
	}
	return nil
}

// ip reads an IP header and its extensions.
func (d *dissection) ip(b []byte, by string) (*packet.Parsed, error) {
	var p packet.Parsed
	if reason := packet.Parse(b, &p); reason != packet.Kept {
		return nil, fmt.Errorf("not an IP packet that we would forward: %v", reason)
	}
	name, ttl := "IPv4", "TTL"
	if p.Version == 6 {
		name, ttl = "IPv6", "hop limit"
	}
	d.add(Layer{
		Name: name, Bytes: p.L4, By: by, addrs: []netip.Addr{p.Flow.Src(), p.Flow.Dst()},
		Words: fmt.Sprintf("%v → %v, %s %d", p.Flow.Src(), p.Flow.Dst(), ttl, p.TTL),
	})
	return &p, nil
}

func ports(p *packet.Parsed) string {
	return fmt.Sprintf("port %d → %d", p.Flow.SrcPort(), p.Flow.DstPort())
}

func flags(f uint8) string {
	var words []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f>>i&1 == 1 {
			words = append(words, name)
		}
	}
	return strings.Join(words, " ")
}

// data shows the lines of an HTTP head, and of anything else only how much it is.
func data(b []byte) Layer {
	head, _, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found || !bytes.Contains(head, []byte("HTTP/1.")) || bytes.ContainsFunc(head, notShown) {
		return Layer{Name: "data", Bytes: len(b), Words: fmt.Sprintf("%d bytes", len(b)), By: byPod}
	}
	return Layer{Name: "HTTP", Bytes: len(b), Words: strings.ReplaceAll(string(head), "\r\n", "\n"), By: byPod}
}

// notShown tells what a terminal should not get from a packet.
func notShown(r rune) bool { return r != '\r' && r != '\n' && (r < ' ' || r > '~') }
