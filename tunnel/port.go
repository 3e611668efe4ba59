package tunnel

import (
	"errors"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tap"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Port is one worker's end of the tunnel. It is for one goroutine at a time; Drops for any.
type Port struct {
	t       *Tunnel
	conn    *udp.Conn // nil if the port only sends
	receive *udp.Receiver
	lanes   []lane
	pending []*packet.Buffer // sent from, to be released at the next Flush
	drops   packet.Drops
	failed  func(int, int, error)

	flushing *lane // the one whose batch is sent

	// The last sender, since most batches have one.
	table *peerTable
	last  *peer

	// The last inner source that came in, and the peer that may send from it.
	sender *peer
	source packet.AddrKey

	// Of the datagram under way.
	header  vxlan.Header
	parsed  packet.Parsed
	outer   packet.ECN // the ECN field that it came with
	segment int        // payload of a segment, if the kernel handed over an inner super-packet and told so; else 0

	taps tap.Writers // nil if nobody looks on
	seen seen
}

// lane is one sending socket: flows keep to theirs, so that they are not reordered.
type lane struct {
	conn  *udp.Conn
	batch *udp.Batch
	heads []byte // headers of the segments in the batch
	used  int
	seen  uint64 // by which number the taps know the next datagram
	flown uint64 // and the first that is not flushed
}

// maxPending bounds the buffers that wait for a Flush.
const maxPending = 64

// headSize is the room for the headers of one segment.
const headSize = vxlan.Overhead + packet.MaxSegmentHeader

// laneHeads is how many segments' headers a lane holds: those of eight full trains.
const laneHeads = 8 * udp.MaxTrain

func newPort(t *Tunnel, receives bool) (*Port, error) {
	p := &Port{t: t}
	p.failed = p.sendFailed
	if receives {
		conn, err := udp.Listen(t.socket(udp.Config{
			Local: netip.AddrPortFrom(t.config.Local, t.config.Port), Shared: true, Trains: t.uses.GRO,
		}))
		if err != nil {
			return nil, err
		}
		p.conn, p.receive = conn, udp.NewReceiver(conn)
	}
	for range t.config.Lanes {
		conn, err := udp.Listen(t.socket(udp.Config{Local: netip.AddrPortFrom(t.config.Local, 0), SendOnly: true}))
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		first := uint64(len(p.lanes)+1) << laneBits
		p.lanes = append(p.lanes, lane{conn: conn, batch: udp.NewBatch(conn), heads: make([]byte, laneHeads*headSize), seen: first, flown: first})
	}
	return p, nil
}

func (p *Port) close() error {
	var errs []error
	if p.conn != nil {
		errs = append(errs, p.conn.Close())
	}
	for _, l := range p.lanes {
		errs = append(errs, l.conn.Close())
	}
	return errors.Join(errs...)
}

// FD returns the descriptor to wait on, or -1 if the port only sends.
func (p *Port) FD() int {
	if p.conn == nil {
		return -1
	}
	return p.conn.FD()
}

// Drops returns the counters of what the port dropped.
func (p *Port) Drops() *packet.Drops { return &p.drops }

// peerAt returns the peer of an underlay address, or nil.
func (p *Port) peerAt(a netip.Addr) *peer {
	table := p.t.peers.Load()
	if p.last != nil && p.table == table && p.last.Addr == a {
		return p.last
	}
	p.table, p.last = table, table.byAddr[a]
	return p.last
}
