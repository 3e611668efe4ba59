package stack

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// BenchmarkForward is the stack's own code on a packet's way, without system calls: from a device's frame to the write or
// the port, and a train of segments from a peer.
func BenchmarkForward(b *testing.B) {
	for _, flows := range []int{1, 10000} {
		for _, bm := range []struct {
			name string
			dst  netip.Addr
		}{{"same", podB}, {"peer", farPod}} {
			b.Run(fmt.Sprintf("to=%s/flows=%d", bm.name, flows), func(b *testing.B) {
				d := newBed(b, 1)
				w, att := d.benchWorker()
				frames := make([][]byte, flows)
				for i := range frames {
					frames[i] = packettest.Packet{Src: podA, Dst: bm.dst, Proto: packet.TCP, SrcPort: uint16(i), DstPort: 80, Flags: packet.ACK, Payload: make([]byte, 64)}.Super(1398)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					w.begin()
					buf := w.pool.Get()
					buf.SetFrame(copy(buf.Space(), frames[i]))
					w.fromPod(att, buf)
					w.flush()
					if i++; i == flows {
						i = 0
					}
				}
			})
		}
	}
	b.Run("from=peer/segments=44", func(b *testing.B) {
		d := newBed(b, 1)
		w, _ := d.benchWorker()
		inner := packettest.Split(packettest.Packet{Src: farPod, Dst: podA, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 44*1398)}.Super(1398))
		frames, parsed := make([][]byte, len(inner)), make([]packet.Parsed, len(inner))
		for i := range inner {
			frames[i] = append(make([]byte, packet.VnetLen), inner[i]...)
		}
		trusted := packet.Offload{}
		b.SetBytes(44 * 1398)
		b.ReportAllocs()
		first := make([]byte, len(frames[0]))
		copy(first, frames[0])
		for b.Loop() {
			copy(frames[0], first) // Finish edits it
			w.begin()
			for i := range frames {
				packet.Parse(frames[i][packet.VnetLen:], &parsed[i])
				w.fromPeer(frames[i], &parsed[i], trusted)
			}
			w.flushTrain()
		}
	})
}

// benchWorker returns a worker whose devices and port lose what they are given, and the first pod's attachment.
func (d *bed) benchWorker() (*worker, *attachment) {
	t := d.tables.Load()
	for _, att := range t.attachments {
		att.queues[0] = discard{}
	}
	w := d.workers[0]
	w.port = lossyPort{d.ports[0]}
	return w, t.attachments[d.idA]
}

// lossyPort releases what it is given.
type lossyPort struct{ *fakePort }

func (lossyPort) Send(b *packet.Buffer, _ *packet.Parsed, _ packet.Offload, _ netip.Addr) {
	b.Release()
}
