package service

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// outcome is what becomes of a packet: where it arrives, or where and why it is dropped.
type outcome struct {
	Arrives stack.Tuple // as what; zero if it does not
	At      string      // the pod or host at which it arrives
	Node    string      // that drops it
	Reason  string
}

// TestTraceAgrees: random packets of a pod and of a host, to Services of every kind, to pods and to nobody, through real devices and the
// tunnel: they go where traces said, node by node, as what they said, and are dropped where and for the reason that they said.
func TestTraceAgrees(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, Change: func(_ int, n *node.Config) { n.Egress.Off = true }})
	c.fillForTraces()
	w := newWatch(t, c)
	random := rand.New(rand.NewPCG(7, 8))
	seen := map[string]int{}
	for i := range fewer(500) {
		p := w.random(random, uint16(10_000+i))
		traced := w.traced(p)
		seen[traced.Reason]++
		var sent outcome
		for range 3 { // a busy machine loses some
			if sent = w.sends(p, traced); sent != (outcome{}) {
				break
			}
		}
		if diff := cmp.Diff(traced, sent, cmp.Comparer(func(a, b stack.Tuple) bool { return a == b })); diff != "" {
			t.Errorf("packet %d, %v (-trace +wire):\n%s", i, p, diff)
		}
	}
	t.Log(seen)
	for _, reason := range []string{"", "service-port", "no-backend", "no-local-backend", "no-service", "ttl", "no-pod", "no-route"} {
		if seen[reason] == 0 {
			t.Errorf("no packet was dropped for %q (forwarded if empty)", reason)
		}
	}
}

// Numbers of Services in the test of traces.
const (
	tracedSelf = iota + 1
	tracedBeside
	tracedFar
	tracedHost
	tracedFarHost
	tracedEmpty
	tracedLocal
	tracedMaglev
)

// fillForTraces makes Services whose backends leave nothing to chance.
func (c *cluster) fillForTraces() {
	beside, far := onPod(1, c.pod(1, 2)), onPod(2, c.pod(2, 1))
	c.put(service("self", tracedSelf), onPod(1, c.pod(1, 1)))
	c.put(service("beside", tracedBeside), beside)
	c.put(service("far", tracedFar), far)
	c.put(service("host", tracedHost), onHost(1))
	c.put(service("far-host", tracedFarHost), onHost(2))
	c.put(service("empty", tracedEmpty))
	maglev := service("maglev", tracedMaglev)
	maglev.Annotations = map[string]string{"middleway.net/scheduler": "maglev"}
	c.put(maglev, beside, far, onHost(2))
	local, policy := service("local", tracedLocal), corev1.ServiceInternalTrafficPolicyLocal
	local.Spec.InternalTrafficPolicy = &policy
	c.must(c.folder.Put(local))
	c.write(slicesOf(local, far)...)
	c.await(c.Nodes[0], local)
}

// probe is a packet of the test.
type probe struct {
	from     string // a device of node 1
	src, dst netip.AddrPort
	proto    packet.Proto
	ttl      uint8
}

func (p probe) String() string {
	return fmt.Sprintf("%s: %v %v -> %v, TTL %d", p.from, p.proto, p.src, p.dst, p.ttl)
}

// watch sees all that arrives at the cluster's pods and hosts.
type watch struct {
	t       *testing.T
	c       *cluster
	pod     *lab.Pod // that sends
	devices []*device
}

// device is a pod's or host's end of its node.
type device struct {
	name string
	fd   int
}

func newWatch(t *testing.T, c *cluster) *watch {
	w := &watch{t: t, c: c, pod: c.pod(1, 1)}
	for _, n := range c.Nodes {
		w.devices = append(w.devices, openDevice(t, n.Namespace, node.DefaultHostDevice))
		for _, p := range n.Pods {
			w.devices = append(w.devices, openDevice(t, p.Namespace, "eth0"))
		}
	}
	return w
}

// openDevice opens a socket that sends whole packets through a device, and receives all that come out of it.
func openDevice(t *testing.T, ns *lab.Namespace, name string) *device {
	t.Helper()
	nl, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	link, err := nl.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{name: ns.Name()}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	if err := ns.Do(func() (err error) {
		if d.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(d.fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: link.Attrs().Index})
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(d.fd) })
	return d
}

// random returns a packet with a source port of its own.
func (w *watch) random(r *rand.Rand, port uint16) probe {
	f := families[r.IntN(2)]
	vip := f.vip(1 + r.IntN(9)) // the ninth is nobody's
	p := probe{
		from: []string{w.pod.Name(), w.pod.Name(), "node-1"}[r.IntN(3)],
		dst: netip.AddrPortFrom([]netip.Addr{
			vip, vip, vip, vip, f.pod(w.c.pod(1, 2)), f.pod(w.c.pod(2, 1)), f.node(2), host(f.podCIDR(1), 99), host(f.podCIDR(2), 99), f.of(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")),
		}[r.IntN(10)], []uint16{servicePort, servicePort, servicePort, targetPort}[r.IntN(4)]),
		proto: []packet.Proto{packet.TCP, packet.UDP, packet.UDP, packet.SCTP}[r.IntN(4)],
		ttl:   []uint8{1, 2, 64, 64, 64, 64}[r.IntN(6)],
	}
	p.src = netip.AddrPortFrom(f.pod(w.pod), port)
	if p.from == "node-1" {
		p.src = netip.AddrPortFrom(f.mw0(1), port)
	}
	return p
}

// traced follows a packet by traces, from node to node.
func (w *watch) traced(p probe) outcome {
	w.t.Helper()
	n := w.c.Nodes[0]
	req := node.TraceRequest{
		From: p.from, Src: p.src.Addr(), Dst: p.dst.Addr(), SrcPort: p.src.Port(), DstPort: p.dst.Port(), Proto: uint8(p.proto), TTL: p.ttl,
	}
	if p.from == "node-1" {
		req.From = node.DefaultHostDevice
	}
	for {
		hop := w.c.trace(n, req)
		if hop.Verdict != "forwarded" {
			return outcome{Node: n.Name(), Reason: hop.Reason}
		}
		next, ok := hop.NextRequest()
		if !ok {
			return outcome{Arrives: *hop.LeavesAs, At: w.nameOf(n, hop.To)}
		}
		n, req = w.c.Nodes[slices.IndexFunc(w.c.Nodes, func(n *lab.Node) bool { return n.Config.Name == hop.PeerName })], next
	}
}

// nameOf returns the namespace that a trace calls "pod NAME" or "the host".
func (w *watch) nameOf(n *lab.Node, to string) string {
	if pod, ok := strings.CutPrefix(to, "pod "); ok {
		return pod
	}
	return n.Name()
}

// sends sends a packet and returns what becomes of it, which is expected to be want; the zero outcome if nothing is heard of it.
func (w *watch) sends(p probe, want outcome) outcome {
	w.t.Helper()
	w.arrived(p) // what came late
	before := map[string]map[string]uint64{}
	for _, n := range w.c.Nodes {
		before[n.Name()] = w.c.drops(n)
	}
	frame := packettest.Packet{
		Src: p.src.Addr(), Dst: p.dst.Addr(), SrcPort: p.src.Port(), DstPort: p.dst.Port(), Proto: p.proto, TTL: p.ttl, Flags: packet.SYN, Payload: []byte("packet"),
	}.Frame()
	from := w.devices[slices.IndexFunc(w.devices, func(d *device) bool { return d.name == p.from })]
	if _, err := unix.Write(from.fd, frame[packet.VnetLen:]); err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		if o, ok := w.arrived(p); ok {
			return o
		}
		if want.Reason == "" {
			continue
		}
		for _, n := range w.c.Nodes {
			for reason, count := range w.c.drops(n) {
				if count > before[n.Name()][reason] {
					return outcome{Node: n.Name(), Reason: reason}
				}
			}
		}
	}
	return outcome{}
}

// arrived returns where a packet has arrived, and as what.
func (w *watch) arrived(p probe) (found outcome, ok bool) {
	buf := make([]byte, 1<<16)
	for _, d := range w.devices {
		for {
			n, from, err := unix.Recvfrom(d.fd, buf, 0)
			if err != nil {
				break
			}
			var parsed packet.Parsed
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING || packet.Parse(buf[:n], &parsed) != packet.Kept {
				continue
			}
			f := &parsed.Flow
			if f.Proto() == p.proto && f.SrcPort() == p.src.Port() && parsed.TTL <= p.ttl {
				found, ok = outcome{Arrives: stack.Tuple{
					Protocol: f.Proto().String(), Src: netip.AddrPortFrom(f.Src(), f.SrcPort()), Dst: netip.AddrPortFrom(f.Dst(), f.DstPort()),
				}, At: d.name}, true
			}
		}
	}
	return found, ok
}
