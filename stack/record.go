package stack

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// record is what a tracer notes of a packet's way.
type record struct {
	trace     Trace
	tables    *tables
	answering bool // what is noted is about an answer
}

func (r *record) add(s Step) {
	s.Answer = r.answering
	r.trace.Steps = append(r.trace.Steps, s)
}

func (r *record) source(text, why string) { r.add(Step{Stage: StageSource, Text: text, Why: why}) }

// entered notes a packet that an attachment sent, or a peer if it is nil, and whether it may send from there.
func (r *record) entered(att *attachment, from origin, f *packet.Flow, reason packet.DropReason) {
	r.trace.Packet = tupleOf(f)
	switch {
	case reason != packet.Kept:
	case from == originOutside:
		r.source("from outside", "a socket of the node listens at the destination")
	case att == nil:
		r.source("from a peer, through the tunnel", "the tunnel has checked that the source lies in its sender's range")
	case from == originPeer:
		r.source("from a peer, forwarded by the host", "the source lies in a peer's range")
	case att.host:
		r.source(fmt.Sprintf("from the host, as %v", f.Src()), "the host has the address")
	default:
		r.source(fmt.Sprintf("from %v, as %v", att, f.Src()), "the pod has the address")
	}
}

// known notes a flow that the node has entered already, to a Service's port if that is not nil.
func (r *record) known(c *flow.Copy, port *service.Port) {
	s := Step{Stage: StageFlow, Text: "the node knows the flow"}
	switch {
	case port != nil && c.Translates():
		s.Text, s.Why = s.Text+", to Service "+port.Name, "a flow keeps its backend, whatever its Service has now"
	case c.Translates():
		s.Why = "a flow is translated as it was at first"
	}
	r.add(s)
}

// served notes what a Service made of a new flow.
func (r *record) served(s *served) {
	switch {
	case s.port != nil:
		r.add(servedStep(s))
	case s.verdict.Action == flow.Answer:
		r.add(Step{Stage: StageService, Text: "a Service's address: the node answers pings in its place", Why: "no backend has the address"})
	case s.own:
		r.add(Step{Stage: StageService, Text: "cluster DNS", Why: "the node itself serves it"})
	}
}

func servedStep(s *served) Step {
	t := &TracedService{Name: s.port.Name, Rule: s.choice.Why, Scheduler: s.port.Scheduler.String(), Backends: []netip.AddrPort{}}
	for i := range s.choice.Backends {
		t.Backends = append(t.Backends, s.choice.Backends[i].AddrPort())
	}
	step := Step{Stage: StageService, Text: "Service " + t.Name + ": no backend to choose from", Why: t.Rule, Service: t}
	if len(t.Backends) > 0 {
		if s.stuck {
			t.Scheduler = "affinity"
		}
		t.Chosen = t.Backends[s.backend]
		step.Text = fmt.Sprintf("Service %s: %v of %s, by %s", t.Name, t.Chosen, counted(len(t.Backends), "backend"), t.Scheduler)
	}
	return step
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// judged notes as what a packet goes on, and where.
func (r *record) judged(v flow.Verdict, to, fl *packet.Flow) {
	if to != nil {
		as := tupleOf(to)
		r.add(Step{Stage: StageTranslate, Text: fmt.Sprintf("becomes %v -> %v", as.Src, as.Dst), Packet: &as})
		fl = to
	}
	if v.Action == flow.Drop || v.Action == flow.Answer {
		return
	}
	route := r.tables.fib.Route(fl.Dst()).Prefix
	r.add(Step{Stage: StageRoute, Text: fmt.Sprintf("%v is %s", fl.Dst(), r.tables.whither(&v, r.tables.generation, fl)), Route: route})
}

// passed notes that a packet fits its way.
func (r *record) passed(p *packet.Parsed, length, mtu int) {
	r.add(Step{Stage: StageSize, Text: fmt.Sprintf("%d bytes of at most %d, time to live %d", length, mtu, p.TTL)})
}

// dropped notes that the packet goes no further.
func (r *record) dropped(reason packet.DropReason) {
	r.add(Step{Stage: StageDrop, Text: reason.Sentence(), Why: reason.String()})
	if !r.answering || r.trace.Verdict == "answered" {
		r.trace.Verdict, r.trace.Reason = "dropped", reason.String()
	}
}

// answers notes that what follows is about an answer.
func (r *record) answers(text string) {
	r.answering = true
	r.add(Step{Stage: StageAnswer, Text: text})
}

// wrote notes a packet that came out.
func (r *record) wrote(stage, to, text string, b []byte) {
	var p packet.Parsed
	_ = packet.Parse(b, &p) // the forwarder made it
	as := tupleOf(&p.Flow)
	r.add(Step{Stage: stage, Text: text, Packet: &as, To: to, Length: p.Len})
	if r.answering {
		r.trace.Answers = append(r.trace.Answers, bytes.Clone(b))
		return
	}
	r.trace.Out = append(r.trace.Out, bytes.Clone(b))
	r.trace.Verdict, r.trace.To, r.trace.LeavesAs = "forwarded", to, &as
}

// Deliver notes a packet that ends in the node.
func (r *record) Deliver(b []byte, _ *packet.Parsed, _ packet.Offload) {
	r.wrote(StageNode, "node", "taken by the node itself", b)
}

// answered notes that the node answers in the place of the destination.
func (r *record) answered(text string) {
	r.trace.Verdict, r.trace.To = "answered", "node"
	r.answers(text)
}

// told notes which error the source is told.
func (r *record) told(k icmp.Kind, from netip.Addr) {
	r.answers(fmt.Sprintf("the source is told: ICMP %v, from %v", k, from))
}

func (r *record) finish() Trace { return r.trace }
