package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Relay is a bare relay between TUN devices: the same system calls as middleway's, in the best loop that was found for them
// (two workers, each with a queue of every device; epoll after 50 µs of polling with sched_yield), and nothing in between.
// What middleway stays behind it is what middleway's own work costs.
//
// On one node a super-packet is read and written whole, unlooked at. Between nodes it is cut into VXLAN datagrams of one
// UDP_SEGMENT send, and merged from one UDP_GRO receive, with inner checksums left open (the headers are parsed for that,
// nothing is verified or decided on). Each worker has a UDP port of its own and speaks to its twin there: perfect steering,
// which a node with one port and unknown peers cannot have.
type Relay struct{}

// Name is the contestant's name.
func (Relay) Name() string { return "relay" }

const (
	relayRole    = "bench-relay"
	relayWorkers = 2
	relayPort    = 8472
)

func init() { lab.RegisterRole(relayRole, relayMain) }

// relayConfig is a relay's argument, as JSON.
type relayConfig struct {
	// Pods are the devices: two on one node, else one.
	Pods []link.Config
	// Local and Peer are the nodes' addresses; zero on one node.
	Local, Peer netip.Addr
}

// Join joins two pods by one relay, or by one on each of two nodes.
func (Relay) Join(place Place) (*Pair, error) {
	return build(func(p *Pair) error {
		if err := p.pods(); err != nil {
			return err
		}
		from, to := podAddrs(place)
		p.Addr = to
		a, b := relayPod(p.From, from), relayPod(p.To, to)
		if place == SameNode {
			return p.daemon(nil, relayRole, relayConfig{Pods: []link.Config{a, b}})
		}
		nodes, err := p.nodes()
		if err != nil {
			return err
		}
		one, two := lab.NodeAddr4(1).Addr(), lab.NodeAddr4(2).Addr()
		return errors.Join(
			p.daemon(nodes[0], relayRole, relayConfig{Pods: []link.Config{a}, Local: one, Peer: two}),
			p.daemon(nodes[1], relayRole, relayConfig{Pods: []link.Config{b}, Local: two, Peer: one}))
	})
}

// relayPod is a pod's device as middleway's node sets it up.
func relayPod(n *lab.Namespace, a netip.Addr) link.Config {
	gateway := a.As4()
	gateway[3] = 1
	return link.Config{
		Netns: n.Path(), Addrs: []netip.Addr{a}, Gateways: []netip.Addr{netip.AddrFrom4(gateway)}, MTU: podMTU,
		Queues: relayWorkers, MaxSegments: relayTrain,
	}
}

// relayTrain is how many segments of a full packet one send takes.
const relayTrain = udp.MaxTrainLen / (podMTU + vxlan.Overhead)

// ready is what a daemon of ours prints when it moves packets.
const ready = "ready"

// startTimeout is how long a process may take until it is ready.
const startTimeout = 5 * time.Second

// daemon starts a role with an argument in a node's namespace, nil for our own, waits until it is ready, and counts its processor
// time as the way's.
func (p *Pair) daemon(node *lab.Namespace, role string, config any, files ...*os.File) error {
	arg, err := json.Marshal(config)
	if err != nil {
		return err
	}
	d := lab.Command(node, role, string(arg))
	d.Files = files
	p.Daemons = append(p.Daemons, d)
	return p.start(role, d)
}

// start starts a process that ends with the pair, and waits until it has printed that it is ready.
func (p *Pair) start(name string, d *lab.Process) error {
	if err := d.Start(); err != nil {
		return err
	}
	p.OnClose(d.Kill)
	for deadline := time.Now().Add(startTimeout); !strings.Contains(d.Tail(), ready); time.Sleep(time.Millisecond) {
		select {
		case <-d.Done():
			return fmt.Errorf("%s ended: %w: %s", name, d.Wait(), strings.TrimSpace(d.Tail()))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready within %v", name, startTimeout)
		}
	}
	return nil
}

// relayMain is the relay's process. It runs until it is killed.
func relayMain(args []string) int {
	var c relayConfig
	err := json.Unmarshal([]byte(args[0]), &c)
	if err == nil {
		err = c.run()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func (c relayConfig) run() error {
	var devices []*tun.Device
	for _, pod := range c.Pods {
		d, err := link.Open(pod)
		if err != nil {
			return err
		}
		devices = append(devices, d)
	}
	runtime.GOMAXPROCS(relayWorkers + 1)
	var g errgroup.Group
	for w := range relayWorkers {
		sources, err := c.sources(devices, w)
		if err != nil {
			return err
		}
		g.Go(func() error { return loop(sources) })
	}
	fmt.Println(ready)
	return g.Wait()
}

// sources are what worker w reads.
func (c relayConfig) sources(devices []*tun.Device, w int) ([]source, error) {
	a := devices[0].Queues()[w]
	if len(devices) == 2 {
		b := devices[1].Queues()[w]
		return []source{newWhole(a, b), newWhole(b, a)}, nil
	}
	port := uint16(relayPort + w)
	conn, err := udp.Listen(udp.Config{Local: netip.AddrPortFrom(c.Local, port), Trains: true})
	if err != nil {
		return nil, err
	}
	peer := udp.NewAddr(netip.AddrPortFrom(c.Peer, port))
	return []source{newOutward(a, conn, peer), newInward(conn, a)}, nil
}

// whole carries frames from one device to another.
type whole struct {
	from, to *tun.Queue
	frame    []byte
}

func newWhole(from, to *tun.Queue) *whole {
	return &whole{from, to, make([]byte, packet.VnetLen+packet.MaxSize)}
}

func (w *whole) fd() int { return w.from.FD() }

func (w *whole) drain() {
	for range drainBudget {
		n, err := w.from.Read(w.frame)
		if err != nil {
			return
		}
		_ = w.to.Write(w.frame[:n], nil) // a packet may be lost
	}
}
