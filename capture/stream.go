package capture

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// Version is that of requests and messages. Another one is refused.
const Version = 1

// Request is what a client wants to see, in JSON. Values of one field are alternatives; of each field that is not empty, one has
// to match.
type Request struct {
	Version int `json:"version"`
	// Interfaces by their names, as in Record.
	Interfaces []string `json:"interfaces,omitempty"`
	// Hosts are source or destination; at the tunnel also the other node's address.
	Hosts []netip.Prefix `json:"hosts,omitempty"`
	// Ports are source or destination port of TCP, UDP or SCTP.
	Ports []uint16 `json:"ports,omitempty"`
	// Protos are numbers of IP protocols.
	Protos []uint8 `json:"protos,omitempty"`
	Drops  bool    `json:"drops,omitempty"` // only what was dropped
	// SnapLen is how many bytes of each packet are kept at most. 0: all.
	SnapLen int `json:"snapLen,omitempty"`
}

// Message is what a daemon sends: one of its fields is set, Start in the first and End in the last.
type Message struct {
	Start  *Start
	Names  []Name // that became known later
	Record *Record
	// Mark says that all records from before it were sent, but for moments.
	Mark time.Time
	End  *End
}

// Start is what a node is, when its capture begins.
type Start struct {
	Version    int
	Node       string
	Interfaces []Interface // those at which packets are wanted
	Names      []Name
}

// Interface is where packets are seen.
type Interface struct {
	Name        string // as in Record
	Description string
}

// Name is what an address is called.
type Name struct {
	Addr netip.Addr
	Name string
}

// End is said when a capture ends in order.
type End struct {
	// Lost is how many records were lost, by their interfaces: there was no room for them.
	Lost map[string]uint64
	// Reason is why the node ended it, in a clause; "" where the client asked for the end.
	Reason string
}

// Sender sends messages.
type Sender struct{ e *gob.Encoder }

// NewSender returns a sender to w.
func NewSender(w io.Writer) *Sender { return &Sender{gob.NewEncoder(w)} }

// Send sends a message.
func (s *Sender) Send(m *Message) error { return s.e.Encode(m) }

// Stream is what a node sends. Next is for one goroutine; Stop and Close may be called by another.
type Stream struct {
	d     *gob.Decoder
	stop  func() error
	close func() error

	Start Start
}

// NewStream returns the stream that comes from r, whose first message it reads. stop asks the node to end the capture, which it does
// with an End; close ends it at once.
func NewStream(r io.Reader, stop, close func() error) (*Stream, error) {
	s := &Stream{d: gob.NewDecoder(r), stop: stop, close: close}
	m, err := s.next()
	if err != nil {
		return nil, err
	}
	if m.Start == nil || m.Start.Version != Version {
		return nil, errors.New("the node speaks another version of the capture protocol; use the middleway program that its daemon runs")
	}
	s.Start = *m.Start
	return s, nil
}

// Next returns the next message. The error is io.EOF when the node ended without an End.
func (s *Stream) Next() (Message, error) {
	m, err := s.next()
	if err == nil && m.Start != nil {
		err = errors.New("a capture that starts twice")
	}
	return m, err
}

func (s *Stream) next() (m Message, err error) {
	if err := s.d.Decode(&m); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return m, io.EOF
		}
		return m, fmt.Errorf("read what the node captured: %w", err)
	}
	if r := m.Record; r != nil {
		r.Node = s.Start.Node
		if r.Length < len(r.Data) {
			return m, fmt.Errorf("read what the node captured: %d bytes of a packet of %d", len(r.Data), r.Length)
		}
	}
	return m, nil
}

// Stop asks the node to end the capture in order: what it has seen until then still comes, and an End.
func (s *Stream) Stop() error { return s.stop() }

// Close ends the capture at once.
func (s *Stream) Close() error { return s.close() }
