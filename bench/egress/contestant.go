package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
)

// Contestant is a way from a pod to the outside.
type Contestant interface {
	// Name is what stands behind beside= in the benchmark's name.
	Name() string
	// Join makes a pod, a node and the outside: the pair's From and To are the first and the last of them. mtu is that of the pod's device, in
	// bytes, IP header included. An error that is errLacking by errors.Is says that this machine lacks something.
	Join(mtu int) (*bench.Pair, error)
}

// contestants are what middleway is compared with.
var contestants = []Contestant{slirp4netns{}, pasta{}, tapVsock{}, kernel{}}

var errLacking = errors.New("this machine lacks something")

// The addresses of the link between node and outside, and its device at the node.
var (
	nodeAddr    = netip.MustParsePrefix("203.0.113.1/24")
	outsideAddr = netip.MustParsePrefix("203.0.113.2/24")
)

const (
	outsideDevice = "out0"
	outsideMTU    = 1500
	// nodeCongestion is that of the node's own sockets, which no contestant chooses. Where a machine's default is bbr it would pace what the
	// contestants pass on; reno is what every kernel allows in a namespace.
	nodeCongestion = "reno"
)

// The pod's address, where it does not come from the way itself, and its gateway.
var (
	podAddr = netip.MustParsePrefix("10.244.1.2/24")
	gateway = netip.MustParseAddr("10.244.1.1")
	all     = netip.MustParsePrefix("0.0.0.0/0")
)

// startTimeout is how long a way may take until it carries something.
const startTimeout = 10 * time.Second

// queueLen is the length of the queue from the pod to a program's TAP device, in frames; 0: as the program leaves it. The kernel's 500 overflow
// within one window of a fast stream: then pasta, which keeps nothing that overtook what was lost, sends 0.3 Gbit/s or less in place of 6.
var queueLen = 10000

// way is a pair in the making.
type way struct {
	*bench.Pair
	node, outside *lab.Namespace
}

// join makes the outside, lets f make the pod and a node that is linked with the outside, and returns when the pod reaches the outside.
func join(f func(*way) error) (*bench.Pair, error) {
	w := &way{Pair: &bench.Pair{Addr: outsideAddr.Addr()}}
	err := w.namespace("outside", &w.outside)
	w.To = w.outside
	for _, step := range []func() error{func() error { return f(w) }, w.await, w.lengthen} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w.Pair, nil
}

// joinProgram is join where what joins pod and node is a program.
func joinProgram(start func(*way) error) (*bench.Pair, error) {
	return join(func(w *way) error {
		if err := w.namespace("pod", &w.From); err != nil {
			return err
		}
		if err := w.makeNode(); err != nil {
			return err
		}
		return start(w)
	})
}

func (w *way) namespace(name string, at **lab.Namespace) error {
	n, err := lab.NewNamespace(name)
	if err != nil {
		return err
	}
	*at = n
	w.OnClose(n.Close)
	return nil
}

// makeNode makes a node that is linked with the outside.
func (w *way) makeNode() error {
	if err := w.namespace("node", &w.node); err != nil {
		return err
	}
	return w.link(w.node)
}

// link joins a node and the outside.
func (w *way) link(node *lab.Namespace) error {
	a, b := lab.VethEnd{Namespace: node, Device: outsideDevice}, lab.VethEnd{Namespace: w.outside, Device: "eth0"}
	if err := lab.Veth(a, b, outsideMTU); err != nil {
		return err
	}
	return errors.Join(
		node.Sysctl("net.ipv4.tcp_congestion_control", nodeCongestion),
		node.AddAddr(outsideDevice, nodeAddr),
		w.outside.AddAddr("eth0", outsideAddr),
		node.AddRoute(all, outsideAddr.Addr(), outsideDevice))
}

// program starts a program in the node's namespace, whose processor time is the way's price.
func (w *way) program(p *lab.Process) error {
	if err := p.Start(); err != nil {
		return err
	}
	w.OnClose(p.Kill)
	w.Daemons = append(w.Daemons, p)
	return nil
}

// await waits until From reaches To.
func (w *way) await() error {
	l, to, err := listen(w.Pair)
	if err != nil {
		return err
	}
	defer l.Close()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		conn, err := w.dial(to)
		if err == nil {
			return conn.Close()
		}
		for _, d := range w.Daemons {
			select {
			case <-d.Done():
				return fmt.Errorf("ended: %w: %s", d.Wait(), d.Tail())
			default:
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not reach %s within %v: %w", w.From.Name(), w.To.Name(), startTimeout, err)
		}
	}
}

// listen listens at To, and tells where From reaches that.
func listen(p *bench.Pair) (l net.Listener, to string, err error) {
	at := netip.AddrPortFrom(p.Addr, 0)
	if len(p.Streams) > 0 {
		at = netip.AddrPortFrom(p.Addr, bench.StreamPort)
	}
	if l, err = p.To.Listen("tcp", at.String()); err != nil {
		return nil, "", err
	}
	if len(p.Streams) > 0 {
		return l, p.Streams[0].String(), nil
	}
	return l, l.Addr().String(), nil
}

// lengthen gives a program's TAP device its queue.
func (w *way) lengthen() error {
	nl, err := w.From.Netlink()
	if err != nil {
		return err
	}
	device, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	if tap, is := device.(*netlink.Tuntap); !is || tap.Mode != netlink.TUNTAP_MODE_TAP || queueLen == 0 {
		return nil
	}
	return nl.LinkSetTxQLen(device, queueLen)
}

func (w *way) dial(to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return w.From.Dial(ctx, "tcp", to)
}
