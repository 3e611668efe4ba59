package capture

import (
	"fmt"
	"strings"
	"time"
)

// Record is a packet as one node saw it at one of its interfaces.
type Record struct {
	Time time.Time `json:"time"`
	Node string    `json:"node"`
	// Interface is a pod as NAMESPACE/NAME, or mw0, gateway or tunnel.
	Interface string `json:"interface"`
	// Direction is in or out, seen from the node.
	Direction string `json:"direction"`
	// Verdict is forwarded, dropped, held (a fragment that waits for its packet's first), taken (a message between nodes), or sent,
	// for a packet that goes out: what came in has the verdict.
	Verdict string `json:"verdict"`
	// Packets is by how much the node's counter of the verdict grew.
	Packets int `json:"packets,omitempty"`
	// Reason is why it was dropped, by the name under which that is counted.
	Reason string `json:"reason,omitempty"`
	// To is where it was forwarded, From where it came in that is sent.
	To   string `json:"to,omitempty"`
	From string `json:"from,omitempty"`
	// Answer is the ICMP error that its source was told.
	Answer string `json:"answer,omitempty"`
	// Rule is what led there, for example a route.
	Rule string `json:"rule,omitempty"`
	// Flow is the packet's, and As the one as which it leaves, if that is another one.
	Flow string `json:"flow,omitempty"`
	As   string `json:"as,omitempty"`
	// Message is what it is where it is no packet of a pod: a message between nodes.
	Message string `json:"message,omitempty"`
	// Flags are TCP's, as in tcpdump.
	Flags string `json:"flags,omitempty"`
	// Notes are what else is to be known.
	Notes []string `json:"notes,omitempty"`
	// Length is that of the whole packet, in bytes, and Data what was kept of it, from its IP header on.
	Length int    `json:"length"`
	Data   []byte `json:"data,omitempty"`
}

// Directions and verdicts.
const (
	In  = "in"
	Out = "out"

	Forwarded = "forwarded"
	Dropped   = "dropped"
	Held      = "held"
	Taken     = "taken"
	Sent      = "sent"
)

// Comment says what became of the packet, and why, in fields that "; " separates. The first is the verdict:
//
//	forwarded to PLACE            counted once
//	forwarded to PLACE in N pieces          N times
//	dropped: REASON               counted once under this reason
//	dropped: REASON, N pieces               N times
//	held | taken | sent, from PLACE         not counted
//
// Then follow the answer, the rule, the flow or the message, and the notes, as far as there are any.
func (r *Record) Comment() string {
	parts := []string{r.verdict()}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+value)
		}
	}
	add("answered: ", r.Answer)
	add("", r.Rule)
	add("", r.Flow)
	add("as ", r.As)
	add("", r.Message)
	for _, n := range r.Notes {
		add("", n)
	}
	return strings.Join(parts, "; ")
}

func (r *Record) verdict() string {
	switch {
	case r.Verdict == Forwarded && r.Packets > 1:
		return fmt.Sprintf("forwarded to %s in %d pieces", r.To, r.Packets)
	case r.Verdict == Forwarded:
		return "forwarded to " + r.To
	case r.Verdict == Dropped && r.Packets > 1:
		return fmt.Sprintf("dropped: %s, %d pieces", r.Reason, r.Packets)
	case r.Verdict == Dropped:
		return "dropped: " + r.Reason
	case r.Verdict == Sent && r.From != "":
		return "sent, from " + r.From
	}
	return r.Verdict
}
