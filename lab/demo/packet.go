package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/middleway-net/middleway/capture/pcapng"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/playground"
)

// captureWait is how long a frame is waited for after its request was answered: it is in the socket's queue already.
const captureWait = time.Second

// overhead is what the tunnel adds over an IPv4 underlay, in bytes: IPv4 20, UDP 8, VXLAN 8, Ethernet 14.
const overhead = 50

// packetFact is one packet between the nodes.
type packetFact struct {
	On       string  `json:"on"`       // the node and its device
	Frame    string  `json:"frame"`    // in hexadecimal
	Bytes    int     `json:"bytes"`    // of the frame
	Packet   int     `json:"packet"`   // of the pod's packet in it
	Overhead int     `json:"overhead"` // added by the tunnel
	Layers   []Layer `json:"layers"`
	Note     string  `json:"note,omitempty"`

	frame []byte
	seen  time.Time
	names []pcapng.Name // of the addresses in it
}

func (f *packetFact) text() string {
	s := fmt.Sprintf("%d bytes, as they left by %s:\n%d of the pod, %d added by the tunnel, %d of the link",
		f.Bytes, f.On, f.Packet, f.Overhead, f.Bytes-f.Packet-f.Overhead)
	if f.Note != "" {
		s += "\n" + f.Note
	}
	return s
}

// drawing is printed below the line.
func (f *packetFact) drawing(paint func(style, s string) string) string { return draw(f.frame, paint) }

func (r *run) packet(ctx context.Context) {
	var seen *packetFact
	r.check(ctx, "GET, other node", func(ctx context.Context) (fact, error) {
		cluster, note := r.cluster, ""
		if cluster.Outside() {
			second, err := r.second(ctx)
			if err != nil {
				return nil, err
			}
			defer second.Close()
			cluster, note = second, "captured in a second cluster, whose nodes have a network of their own: only root may listen on the machine's"
		}
		const device = "eth0"
		p, from, to := placesOf(cluster)[1], cluster.Nodes()[0], cluster.Nodes()[1]
		frame, err := captureRequest(ctx, from.Namespace, device, p)
		if err != nil {
			return nil, err
		}
		layers, err := dissect(frame)
		f := &packetFact{On: device + " of " + from.Name(), Note: note, Frame: hex.EncodeToString(frame), Bytes: len(frame), Layers: layers, frame: frame, seen: time.Now()}
		if err != nil {
			return f, err
		}
		f.names = []pcapng.Name{
			{Addr: from.Config.Address, Name: from.Name()}, {Addr: to.Config.Address, Name: to.Name()},
			{Addr: p.client.Addrs()[0], Name: p.client.Name()}, {Addr: p.server.Addrs()[0], Name: p.server.Name()},
		}
		for _, l := range layers {
			switch l.By {
			case byKernel, byDaemon:
				f.Overhead += l.Bytes
			case byPod:
				f.Packet += l.Bytes
			}
		}
		seen = f
		return f, f.check()
	})
	if seen != nil && r.config.Write != "" {
		r.write(ctx, seen)
	}
}

// second makes a cluster whose nodes have a network of their own, on which an ordinary user may listen too.
func (r *run) second(ctx context.Context) (*playground.Cluster, error) {
	c, err := playground.New(ctx, playground.Config{Underlay: playground.Kernel, Change: r.config.Change})
	if err != nil {
		return nil, err
	}
	if err := awaitServers(ctx, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// check compares the frame with the cluster: source and destination outside, then inside.
func (f *packetFact) check() error {
	var got, want []netip.Addr
	for _, l := range f.Layers {
		got = append(got, l.addrs...)
	}
	for _, n := range f.names {
		want = append(want, n.Addr)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("the packet's addresses are %v, want %v", got, want)
	}
	if f.Overhead != overhead {
		return fmt.Errorf("the tunnel added %d bytes, want %d", f.Overhead, overhead)
	}
	return nil
}

// captureRequest makes an HTTP request and returns the frame in which it left the node.
func captureRequest(ctx context.Context, node *lab.Namespace, device string, p place) ([]byte, error) {
	c, err := openCapture(node, device)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if _, err := visit(ctx, p, 0); err != nil {
		return nil, err
	}
	isRequest := func(frame []byte) bool { return bytes.Contains(frame, []byte("GET / HTTP/1.1\r\n")) }
	frame, err := c.first(isRequest, captureWait)
	if timedOut(err) {
		return nil, fmt.Errorf("the request was answered, but no frame with it was seen on %s of %s", device, node.Name())
	}
	return frame, err
}
