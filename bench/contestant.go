package bench

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/lab"
)

// Place says where the two pods of a Pair are.
type Place string

// Places.
const (
	SameNode  Place = "same"  // on one node
	CrossNode Place = "cross" // on two nodes, joined by a veth of MTU 1500
)

// Places are all places.
var Places = []Place{SameNode, CrossNode}

// Contestant is a way to join two pods.
type Contestant interface {
	// Name is what stands behind path= in the benchmark's name: a word of lower-case letters.
	Name() string
	// Join makes two pods and joins them. The pods belong to the Pair, whose Close takes everything down. An error that is
	// unix.EOPNOTSUPP by errors.Is says that this kernel lacks something, and skips the benchmark.
	Join(Place) (*Pair, error)
}

// contestants are the paths of all comparisons.
var contestants = []Contestant{Middleway{}, Kernel{}, Relay{}}

// Add makes a contestant take part in all tests and benchmarks of this package; call it in an init func.
func Add(c Contestant) { contestants = append(contestants, c) }

// podMTU is every contestant's in both places, in bytes, IP header included: what VXLAN leaves of 1500.
const podMTU = 1450

// Pair is two pods and what joins them.
type Pair struct {
	// From sends, To receives. In each place every contestant gives them the plan's addresses (package lab).
	From, To *lab.Namespace
	// Addr is To's address, which From dials.
	Addr netip.Addr
	// Control is where From reaches the server of the load. Default: Addr, at perf.DefaultPort.
	Control netip.AddrPort
	// Streams are where streams of TCP go, each to one of them, and reach To at StreamPort. Default: Addr, at a port that is free.
	Streams []netip.AddrPort
	// Daemons are the processes between them, whose processor time is the price of the way; none for a way in the kernel.
	Daemons []*lab.Process

	doors   []*lab.Namespace // beside To: where streams of TCP arrive as well, at doorPort
	server  *lab.Process     // of the load, from the first run on
	closers []func() error
}

// OnClose makes Close call f before what was given to OnClose earlier.
func (p *Pair) OnClose(f func() error) { p.closers = append(p.closers, f) }

// Close takes the pair down, in the reverse order of its making.
func (p *Pair) Close() error {
	var errs []error
	for _, f := range slices.Backward(p.closers) {
		errs = append(errs, f())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// StreamPort is where To takes streams of TCP that reach it at other addresses than its own.
const StreamPort = doorPort

// build runs f on a new pair, and takes down what f made of it if f fails.
func build(f func(*Pair) error) (*Pair, error) {
	p := &Pair{}
	if err := f(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// namespace makes a namespace that ends with the pair.
func (p *Pair) namespace(name string) (*lab.Namespace, error) {
	n, err := lab.NewNamespace(name)
	if err == nil {
		p.OnClose(n.Close)
	}
	return n, err
}

// pods makes the namespaces of both pods, node numbers from and to.
func (p *Pair) pods() (err error) {
	if p.From, err = p.namespace("pod-from"); err != nil {
		return err
	}
	p.To, err = p.namespace("pod-to")
	return err
}

// nodes makes two nodes and a veth between them. The underlay ends with the nodes.
func (p *Pair) nodes() (nodes [2]*lab.Namespace, err error) {
	for i, name := range []string{"node-1", "node-2"} {
		if nodes[i], err = p.namespace(name); err != nil {
			return nodes, err
		}
	}
	_, err = lab.Bridge(1500, nodes[:]...)
	return nodes, err
}

// podAddrs returns the addresses that the contestants made here give to the pods.
func podAddrs(place Place) (from, to netip.Addr) {
	from = podAddr(1, 2)
	if place == SameNode {
		return from, podAddr(1, 3)
	}
	return from, podAddr(2, 2)
}

// podAddr returns address h of node n's range.
func podAddr(n int, h byte) netip.Addr {
	a := lab.PodCIDR4(n).Addr().As4()
	a[3] = h
	return netip.AddrFrom4(a)
}
