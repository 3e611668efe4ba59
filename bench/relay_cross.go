package bench

import (
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// outward carries frames from a device to the peer.
type outward struct {
	from   *tun.Queue
	batch  *udp.Batch
	peer   *udp.Addr
	header vxlan.Header
	frames [drainBudget][]byte
	heads  []byte
	parsed packet.Parsed
}

const (
	headSize = vxlan.Overhead + packet.MaxSegmentHeader
	// maxHeads is enough for a drain's worth of full trains.
	maxHeads = drainBudget * udp.MaxTrain
)

func newOutward(from *tun.Queue, conn *udp.Conn, peer *udp.Addr) *outward {
	o := &outward{
		from: from, batch: udp.NewBatch(conn), peer: peer, heads: make([]byte, maxHeads*headSize),
		header: vxlan.Header{VNI: vxlan.DefaultVNI, Type: vxlan.EtherTypeIPv4},
	}
	for i := range o.frames {
		o.frames[i] = make([]byte, packet.VnetLen+packet.MaxSize)
	}
	return o
}

func (o *outward) fd() int { return o.from.FD() }

func (o *outward) drain() {
	heads := o.heads
	for i := range o.frames {
		n, err := o.from.Read(o.frames[i])
		if err != nil {
			break
		}
		heads = o.add(o.frames[i][:n], heads)
	}
	o.batch.Flush(ignoreFailed)
}

func ignoreFailed(int, int, error) {}

// add puts a frame into the batch, with heads as room for its headers, and returns the room that is left.
func (o *outward) add(frame, heads []byte) []byte {
	offload, _ := packet.DecodeOffload(frame)
	b := frame[packet.VnetLen:]
	if packet.Parse(b, &o.parsed) != packet.Kept || !o.batch.Fits(2*udp.MaxTrain) {
		return heads
	}
	o.batch.Begin(o.peer)
	if offload.GSO == packet.GSONone {
		o.header.Encode(heads)
		o.batch.Part(heads[:vxlan.Overhead])
		o.batch.Part(b)
		o.batch.End(0, packet.NotECT)
		return heads[headSize:]
	}
	segments, _ := packet.Split(b, &o.parsed, offload, true)
	headLen := vxlan.Overhead + segments.HeaderLen()
	for segments.Left() {
		o.header.Encode(heads)
		payload, _ := segments.Next(heads[vxlan.Overhead:])
		o.batch.Part(heads[:headLen])
		o.batch.Part(payload)
		heads = heads[headSize:]
	}
	o.batch.End(headLen+segments.Size(), packet.NotECT)
	return heads
}

// inward carries datagrams from the peer to a device.
type inward struct {
	conn    *udp.Conn
	receive *udp.Receiver
	to      *tun.Queue
	train   packet.Train
	parsed  packet.Parsed
}

func newInward(conn *udp.Conn, to *tun.Queue) *inward {
	return &inward{conn: conn, receive: udp.NewReceiver(conn), to: to}
}

func (i *inward) fd() int { return i.conn.FD() }

func (i *inward) drain() {
	for _, m := range i.receive.Receive() {
		for data := m.Data; len(data) > 0; {
			n := min(m.Segment, len(data))
			i.take(data[:n])
			data = data[n:]
		}
	}
	i.flush()
}

func (i *inward) take(data []byte) {
	frame := data[vxlan.Overhead-packet.VnetLen:]
	b := frame[packet.VnetLen:]
	if packet.Parse(b, &i.parsed) != packet.Kept {
		return
	}
	var o packet.Offload
	if p := i.parsed.Proto; p == packet.TCP || p == packet.UDP { // left open by the other relay
		o = packet.PartialOffload(&i.parsed)
	}
	if !i.train.Empty() && i.train.Append(b, &i.parsed, o) {
		return
	}
	i.flush()
	i.train.Start(frame, &i.parsed, o)
}

func (i *inward) flush() {
	if i.train.Empty() {
		return
	}
	frame, more := i.train.Finish()
	_ = i.to.Write(frame, more) // a packet may be lost
	i.train.Reset()
}
