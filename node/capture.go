package node

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/unixsock"
)

// Interfaces of a capture beside the pods and the host's.
const (
	gatewayInterface = "gateway"
	tunnelInterface  = "tunnel"
	outsideInterface = "outside"
)

// captures are those under way.
type captures struct {
	onlookers
	ending chan struct{} // closed when the node ends
}

// finish lets none begin any more, and returns when those under way have told their clients of the node's end, or after lastWait.
func (c *captures) finish() {
	c.refuse()
	close(c.ending)
	all := make(chan struct{})
	go func() { // wait, too, waits for it
		defer close(all)
		c.wait()
	}()
	select {
	case <-all:
	case <-time.After(lastWait):
	}
}

// Times of a capture.
const (
	// readEvery is how often the rings are read: at 10 Gbit/s that is 6 MB of packets, of which snaplen may be less.
	readEvery = 5 * time.Millisecond
	// markEvery is how often the client is told up to when it has all records.
	markEvery = 25 * time.Millisecond
	// namesEvery is how often pods are looked for that came later, or are gone.
	namesEvery = time.Second
	// lastWait bounds how long clients have to take what is left when the node ends.
	lastWait = time.Second
)

// maxRequest bounds a capture's request, in bytes.
const maxRequest = 1 << 16

// serveCapture sends what is asked for by the first line of the request's body, a capture.Request, until the body ends, the client
// is gone, or the node ends.
func (n *Node) serveCapture(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	body := bufio.NewReaderSize(r.Body, maxRequest)
	req, err := readCaptureRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, err := n.newCapture(w, req)
	if err == nil {
		err = n.status.captures.begin()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer n.status.captures.end()
	c.control = control
	asked := make(chan struct{})
	go func() { // ends with the request
		defer close(asked)
		_, _ = io.Copy(io.Discard, body)
	}()
	if err := c.run(r.Context(), asked); err != nil && r.Context().Err() == nil {
		n.log.Info("a capture ended", "err", err)
	}
}

func readCaptureRequest(body *bufio.Reader) (req capture.Request, err error) {
	line, err := body.ReadSlice('\n')
	if err != nil {
		return req, fmt.Errorf("read the request: %w", err)
	}
	if err := unixsock.Decode(line, &req); err != nil {
		return req, fmt.Errorf("read the request: %w", err)
	}
	if req.Version != capture.Version {
		return req, fmt.Errorf("a request of version %d, of which this daemon knows nothing; use the middleway program that the daemon runs", req.Version)
	}
	return req, nil
}

// nodeCapture is one client's capture.
type nodeCapture struct {
	n       *Node
	req     capture.Request
	filter  tap.Filter
	control *http.ResponseController
	buffer  *bufio.Writer
	sender  *capture.Sender
	host    string                  // the host's interface
	peers   map[netip.Addr]string   // their names
	pods    map[string][]netip.Addr // with their addresses, where nothing but pods is wanted
	named   map[capture.Name]bool
	record  capture.Record // under way
	failed  error          // of sending
}

func (n *Node) newCapture(w io.Writer, req capture.Request) (*nodeCapture, error) {
	buffer := bufio.NewWriterSize(w, 1<<16)
	c := &nodeCapture{
		n: n, req: req, buffer: buffer, sender: capture.NewSender(buffer), host: "mw0",
		peers: map[netip.Addr]string{}, named: map[capture.Name]bool{},
	}
	for _, p := range n.peers() {
		c.peers[p.Address] = p.Name
	}
	c.filter = tap.Filter{Hosts: req.Hosts, Ports: req.Ports, Drops: req.Drops}
	for _, proto := range req.Protos {
		c.filter.Protos = append(c.filter.Protos, packet.Proto(proto))
	}
	places := c.places()
	for _, name := range req.Interfaces {
		at, ok := places[name]
		if !ok {
			return nil, fmt.Errorf("%s has no interface %q; it has %s", n.config.Name, name, strings.Join(slices.Sorted(maps.Keys(places)), ", "))
		}
		c.filter.Places = append(c.filter.Places, at)
	}
	c.pods = c.onlyPods()
	return c, nil
}

// onlyPods returns the pods with their addresses where nothing but pods is wanted, else nil.
func (c *nodeCapture) onlyPods() map[string][]netip.Addr {
	pods := map[string][]netip.Addr{}
	for _, a := range c.n.stack.Attached() {
		if slices.Contains(c.filter.Places, tap.Place{Layer: tap.Pod, Name: a.Name}) {
			pods[a.Name] = a.Addrs
		}
	}
	if len(pods) < len(c.filter.Places) {
		return nil
	}
	return pods
}

// gone says that the pods are gone where nothing else is wanted, in a clause; "" as long as one is there. One of the same name
// with other addresses is another pod.
func (c *nodeCapture) gone() string {
	for _, a := range c.n.stack.Attached() {
		if addrs, ok := c.pods[a.Name]; ok && slices.Equal(addrs, a.Addrs) {
			return ""
		}
	}
	if len(c.pods) == 0 {
		return ""
	}
	return "pod " + strings.Join(slices.Sorted(maps.Keys(c.pods)), ", ") + " is gone"
}

// places returns the interfaces that the node has now, by name.
func (c *nodeCapture) places() map[string]tap.Place {
	all := map[string]tap.Place{}
	for _, a := range c.n.stack.Attached() {
		if a.Host {
			c.host = a.Name
			all[a.Name] = tap.Place{Layer: tap.Host}
		} else {
			all[a.Name] = tap.Place{Layer: tap.Pod, Name: a.Name}
		}
	}
	all[gatewayInterface], all[tunnelInterface] = tap.Place{Layer: tap.Gateway}, tap.Place{Layer: tap.Tunnel}
	all[outsideInterface] = tap.Place{Layer: tap.Outside}
	return all
}

// run sends what is seen until stop is closed, the node ends or the pods are gone, which are a capture's end in order, or ctx ends.
func (c *nodeCapture) run(ctx context.Context, stop <-chan struct{}) error {
	t := c.n.stack.Tap(tap.Config{Filter: c.filter, SnapLen: c.req.SnapLen})
	defer c.n.stack.Untap(t)
	if err := c.send(&capture.Message{Start: c.start()}); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for marked, looked := time.Now(), time.Now(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return c.end(t, "")
		case <-c.n.status.captures.ending:
			return c.end(t, cmp.Or(c.gone(), "the daemon ended"))
		case <-tick.C:
		}
		now := time.Now()
		c.read(t)
		if now.Sub(looked) >= namesEvery {
			looked = now
			if names := c.names(); len(names) > 0 {
				_ = c.send(&capture.Message{Names: names})
			}
			if reason := c.gone(); reason != "" {
				return c.end(t, reason)
			}
		}
		if now.Sub(marked) >= markEvery {
			marked = now
			_ = c.send(&capture.Message{Mark: now})
			_ = c.flush()
		}
		if c.failed != nil {
			return c.failed
		}
	}
}

// end ends the capture in order.
func (c *nodeCapture) end(t *tap.Tap, reason string) error {
	c.n.stack.Untap(t)
	c.read(t)
	_ = c.send(&capture.Message{End: &capture.End{Lost: c.lost(t), Reason: reason}})
	return c.flush()
}

// send sends a message; after an error it sends no more.
func (c *nodeCapture) send(m *capture.Message) error {
	if c.failed == nil {
		c.failed = c.sender.Send(m)
	}
	return c.failed
}

func (c *nodeCapture) flush() error {
	if c.failed == nil {
		c.failed = errors.Join(c.buffer.Flush(), c.control.Flush())
	}
	return c.failed
}

// read sends the records that are there.
func (c *nodeCapture) read(t *tap.Tap) {
	t.Read(func(r *tap.Record, data []byte) {
		c.describe(r, data)
		_ = c.send(&capture.Message{Record: &c.record})
	})
}

// start tells what the node is.
func (c *nodeCapture) start() *capture.Start {
	s := &capture.Start{Version: capture.Version, Node: c.n.config.Name, Names: c.names()}
	places := c.places()
	for _, name := range slices.SortedFunc(maps.Keys(places), func(a, b string) int {
		return 2*int(places[a].Layer) - 2*int(places[b].Layer) + strings.Compare(a, b)
	}) {
		if at := places[name]; len(c.filter.Places) == 0 || slices.Contains(c.filter.Places, at) {
			s.Interfaces = append(s.Interfaces, capture.Interface{Name: name, Description: descriptions[at.Layer]})
		}
	}
	return s
}

var descriptions = map[tap.Layer]string{
	tap.Pod:     "eth0 of a pod",
	tap.Host:    "the way to the node's own kernel",
	tap.Gateway: "the netstack behind the gateway addresses, and ICMP errors of the node",
	tap.Tunnel:  "VXLAN to other nodes; of the outer headers the time to live, the ID and the UDP checksum are not known: 64, 0 and 0",
	tap.Outside: "sockets of the node to what is outside the cluster: what pods send there and clients send from there",
}

// names returns the names of addresses that were not told yet.
func (c *nodeCapture) names() (fresh []capture.Name) {
	all := []capture.Name{{Addr: c.n.config.Address, Name: c.n.config.Name}}
	for addr, name := range c.peers {
		if name != "" {
			all = append(all, capture.Name{Addr: addr, Name: name})
		}
	}
	for _, a := range c.n.gateways() {
		all = append(all, capture.Name{Addr: a, Name: "gateway." + c.n.config.Name})
	}
	for _, a := range c.n.stack.Attached() {
		name := a.Name
		if a.Host {
			name += "." + c.n.config.Name
		}
		for _, addr := range a.Addrs {
			all = append(all, capture.Name{Addr: addr, Name: name})
		}
	}
	for _, n := range all {
		if !c.named[n] {
			c.named[n] = true
			fresh = append(fresh, n)
		}
	}
	return fresh
}

func (c *nodeCapture) lost(t *tap.Tap) map[string]uint64 {
	lost := map[string]uint64{}
	for at, n := range t.Lost() {
		lost[c.interfaceOf(at)] += n
	}
	return lost
}
