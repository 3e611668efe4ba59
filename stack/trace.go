package stack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/middleway-net/middleway/stack/fib"
	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
	"github.com/middleway-net/middleway/stack/tap"
)

// Probe describes the packet that Trace sends.
type Probe struct {
	// From is the attachment that sends: a pod's name, for example "default/web-0", or the host's, "mw0". Default: the attachment
	// that has Src, else the peer behind whose range Src lies, else the outside if Dst is where clients there reach a Service.
	From string
	// Src is the source. Default: the first address of From of the family of Dst.
	Src netip.Addr
	Dst netip.Addr
	// Proto is the protocol. Default TCP.
	Proto packet.Proto
	// SrcPort and DstPort are ports; an ICMP echo has SrcPort as its identifier. Default of SrcPort: 49152.
	SrcPort, DstPort uint16
	// Flags are TCP's. Default SYN.
	Flags uint8
	// TTL is the time to live. Default 64.
	TTL uint8
	// Payload is how many bytes of payload the packet has.
	Payload int
	// MayFragment: an IPv4 packet may be cut where it is too large.
	MayFragment bool
	// Enter: the flow is entered as by a real packet. Else the trace leaves nothing behind.
	Enter bool
}

// Trace is the way of a packet through the node, step by step.
type Trace struct {
	// Packet is the packet as it was sent.
	Packet Tuple  `json:"packet"`
	Steps  []Step `json:"steps"`
	// Verdict is "forwarded", "dropped", or "answered" where the node itself answers in the place of the destination.
	Verdict string `json:"verdict"`
	// Reason is why the packet was dropped, as it is counted; empty if it was not.
	Reason string `json:"reason,omitempty"`
	// To is where the packet came out, as Flow.To; empty if it was dropped.
	To string `json:"to,omitempty"`
	// LeavesAs is the packet as it came out; nil if it was dropped.
	LeavesAs *Tuple `json:"leavesAs,omitempty"`

	// Out and Answers are the packets that came out, as they were written: the traced one, or its pieces, and what the node said
	// to its source.
	Out     [][]byte `json:"-"`
	Answers [][]byte `json:"-"`
}

// Stages of a Step, in the order in which a packet meets them.
const (
	StageSource    = "source"    // which attachment or peer it came from, and whether it may send from its address
	StageFlow      = "flow"      // the node knows the flow already
	StageService   = "service"   // which Service has the destination, and which backend was chosen
	StageTranslate = "translate" // as what it goes on
	StageRoute     = "route"     // where the destination is
	StageSize      = "size"      // time to live, and what the way takes
	StageDevice    = "device"    // written to a pod's device or the host's
	StageTunnel    = "tunnel"    // encapsulated and sent to a peer
	StageNode      = "node"      // ends in the node itself
	StageOutside   = "outside"   // out of the cluster, through a socket of the node
	StageDrop      = "drop"      // goes no further
	StageAnswer    = "answer"    // what the node sends to the source
)

// Step is one thing that was found or decided about a packet.
type Step struct {
	Stage string `json:"stage"`
	// Text says what was found or decided, and Why by which rule; both are sentences without their ends.
	Text string `json:"text"`
	Why  string `json:"why,omitempty"`
	// Packet is what the packet is from this step on; nil if the step did not change that.
	Packet *Tuple `json:"packet,omitempty"`
	// Service is set at StageService where a Service's port was found.
	Service *TracedService `json:"service,omitempty"`
	// Route is the prefix that led on, at StageRoute; not valid if none did.
	Route netip.Prefix `json:"route,omitzero"`
	// To is where a packet came out, as Flow.To, and Length how many bytes it had, at StageDevice, StageTunnel and StageNode.
	To     string `json:"to,omitempty"`
	Length int    `json:"length,omitempty"`
	// Answer: the step is about what the node says to the packet's source.
	Answer bool `json:"answer,omitempty"`
}

// TracedService is what a Service made of a packet.
type TracedService struct {
	// Name is the port's, for example "default/web:http".
	Name string `json:"name"`
	// Backends are those that the traffic policy left to choose from, and Rule says by which rule; Chosen is one of them.
	Backends []netip.AddrPort `json:"backends"`
	Rule     string           `json:"rule,omitempty"`
	Chosen   netip.AddrPort   `json:"chosen,omitzero"`
	// Scheduler is how it was chosen: "random", "round-robin", "least-connections", "maglev", or "affinity" if the client's last
	// connection went there.
	Scheduler string `json:"scheduler"`
}

// tracer forwards packets that nobody has sent, by the functions that forward the others, to where they are only looked at.
type tracer struct {
	mu sync.Mutex
	forwarder
	glance  *flow.Cache
	entered *flow.Cache
}

// Trace sends a packet through the functions that forward real ones, on the tables of this moment, and tells each step. Nobody
// gets the packet, and counters do not count it. The backend of a new flow is chosen anew each time, so that another packet may
// go to another one, unless p.Enter is set.
func (s *Stack) Trace(p Probe) (Trace, error) {
	tables := s.tables.Load()
	att, from, err := tables.prepareProbe(&p)
	if err != nil {
		return Trace{}, err
	}
	frame := make([]byte, packet.VnetLen+packet.MaxSize)
	n := packet.BuildProbe(frame[packet.VnetLen:], &packet.Probe{
		Proto: p.Proto, Src: netip.AddrPortFrom(p.Src, p.SrcPort), Dst: netip.AddrPortFrom(p.Dst, p.DstPort),
		Flags: p.Flags, TTL: p.TTL, Payload: p.Payload, MayFragment: p.MayFragment,
	})
	if from == originOutside && !s.frontOf(frame[packet.VnetLen:][:n]) {
		return Trace{}, fmt.Errorf("trace: nobody on this node or behind a peer has the source %v, and no Service is reached from outside at the destination", p.Src)
	}
	return s.traceFrame(tables, att, from, frame[:packet.VnetLen+n], p.Enter), nil
}

// frontOf reports whether a packet goes to an External frontend.
func (s *Stack) frontOf(b []byte) bool {
	var p packet.Parsed
	_ = packet.Parse(b, &p) // BuildProbe made it
	_, found := s.services.Load().Lookup(&p.Flow)
	return found == service.AtExternal
}

// prepareProbe fills in what was left out and returns who sends: an attachment, or nil and a peer or the outside.
func (t *tables) prepareProbe(p *Probe) (*attachment, origin, error) {
	if !p.Dst.IsValid() {
		return nil, 0, errors.New("trace: a destination address is needed")
	}
	att, from, err := t.sender(p)
	if err != nil {
		return nil, 0, err
	}
	if p.Src.Is4() != p.Dst.Is4() {
		return nil, 0, fmt.Errorf("trace: %v and %v are of different families", p.Src, p.Dst)
	}
	if p.Proto == 0 {
		p.Proto = packet.TCP
	}
	if p.SrcPort == 0 {
		p.SrcPort = 49152
	}
	if p.Flags == 0 {
		p.Flags = packet.SYN
	}
	if p.TTL == 0 {
		p.TTL = 64
	}
	if p.Payload < 0 || p.Payload > packet.MaxSize-packet.ProbeHeaders {
		return nil, 0, fmt.Errorf("trace: %d bytes of payload: must be from 0 to %d", p.Payload, packet.MaxSize-packet.ProbeHeaders)
	}
	return att, from, nil
}

// sender finds the attachment that sends a probe, and its address.
func (t *tables) sender(p *Probe) (*attachment, origin, error) {
	if p.From == "" {
		if !p.Src.IsValid() {
			return nil, 0, errors.New("trace: the name of a pod or a source address is needed")
		}
		switch d := t.fib.Lookup(p.Src); d.Kind {
		case fib.Attachment:
			return t.attachments[d.Attachment], originPod, nil
		case fib.Peer:
			return nil, originPeer, nil
		}
		return nil, originOutside, nil
	}
	at := slices.IndexFunc(t.attachments, func(a *attachment) bool { return a != nil && !a.lost && a.name == p.From })
	if at < 0 {
		return nil, 0, fmt.Errorf("trace: no pod %q is attached to this node", p.From)
	}
	from := t.attachments[at]
	if !p.Src.IsValid() {
		i := slices.IndexFunc(from.addrs, func(a netip.Addr) bool { return a.Is4() == p.Dst.Is4() })
		if i < 0 {
			return nil, 0, fmt.Errorf("trace: %s has no address of the family of %v", p.From, p.Dst)
		}
		p.Src = from.addrs[i]
	}
	return from, originPod, nil
}

// traceFrame is Trace for a frame as a device of the tables hands it over, or if att is nil a peer or the outside.
func (s *Stack) traceFrame(tables *tables, att *attachment, from origin, frame []byte, enter bool) Trace {
	t := &s.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	s.local.mu.Lock() // whose port tells how much the ways take
	defer s.local.mu.Unlock()
	t.prepare(s, tables, enter)
	if att == nil && from == originPeer {
		t.traceFromPeer(slices.Clone(frame))
		return t.record.finish()
	}
	b := t.pool.Get()
	b.SetFrame(copy(b.Space(), frame))
	if att != nil {
		t.fromPod(t.tables.attachments[att.id], b)
		return t.record.finish()
	}
	if packet.Parse(b.Packet(), &t.parsed) == packet.Kept {
		t.record.entered(nil, from, &t.parsed.Flow, packet.Kept)
	}
	o, _ := packet.DecodeOffload(frame) // the caller has made it
	t.fromNode(b, o, from)
	return t.record.finish()
}

func (t *tracer) traceFromPeer(frame []byte) {
	p := &t.parsed
	o, _ := packet.DecodeOffload(frame) // the caller has made it
	if reason := packet.Parse(frame[packet.VnetLen:], p); reason != packet.Kept {
		t.drop(reason, 1)
		return
	}
	t.record.entered(nil, originPeer, &p.Flow, packet.Kept)
	t.fromPeer(frame, p, o)
	t.flushTrain()
}

// prepare points everything that would leave the forwarder to the record.
func (t *tracer) prepare(s *Stack, tables *tables, enter bool) {
	if t.s == nil {
		t.init(s, 0, nil)
		t.glance, t.entered = flow.Glance{Table: s.flows}.NewCache(), t.cache
	}
	t.flows, t.cache = flow.Glance{Table: s.flows}, t.glance
	if enter {
		t.flows, t.cache = s.flows, t.entered
	}
	t.answers = answerer{} // former traces do not count against the limits of errors
	t.record = &record{trace: Trace{Steps: []Step{}}}
	t.tables, t.services, t.now = tables.recorded(t.record), s.services.Load(), t.cache.Now()
	t.record.tables = t.tables
	t.node, t.port, t.outside = t.record, nil, nil
	if s.outside != nil {
		t.outside = tracedOutside{t.record}
	}
	if s.local.port != nil {
		t.port = tracedPort{s.local.port, t.record}
	}
}

// recorded returns tables whose devices are written to a record.
func (t *tables) recorded(r *record) *tables {
	copied := *t
	copied.attachments = slices.Clone(t.attachments)
	for i, a := range t.attachments {
		if a != nil && !a.lost {
			to := *a
			to.queues = []Queue{tracedQueue{a.queues[0], &to, r}}
			copied.attachments[i] = &to
		}
	}
	copied.host = hostAmong(copied.attachments)
	return &copied
}

// tracedQueue is a device that only notes what it is given.
type tracedQueue struct {
	Queue
	att    *attachment
	record *record
}

func (q tracedQueue) Write(frame []byte, more [][]byte) error {
	q.record.wrote(StageDevice, q.att.String(), "written to the device of "+q.att.String(), slices.Concat(frame[packet.VnetLen:], slices.Concat(more...)))
	return nil
}

// tracedOutside is the outside that only notes what it is given.
type tracedOutside struct{ record *record }

func (o tracedOutside) Deliver(b []byte, _ *packet.Parsed, _ packet.Offload) {
	o.record.wrote(StageOutside, "outside", "leaves the cluster through a socket of the node", b)
}

// tracedPort is the tunnel that only notes what it is given.
type tracedPort struct {
	Port
	record *record
}

func (p tracedPort) Send(b *packet.Buffer, _ *packet.Parsed, _ packet.Offload, peer netip.Addr) {
	p.record.wrote(StageTunnel, "peer "+peer.String(), p.Describe(peer), b.Packet())
	b.Release()
}

func (p tracedPort) Flush() {}

func (p tracedPort) Tap(tap.Writers) {}
