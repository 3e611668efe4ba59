package stack

import (
	"encoding/binary"
	"testing"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// quietOutside is an Outside that only counts, for benchmarks.
type quietOutside struct{ packets int }

func (o *quietOutside) Deliver([]byte, *packet.Parsed, packet.Offload) { o.packets++ }

// newQuietBed returns a bed of newOutsideBed on which nobody looks, and whose devices lose what they are given.
func newQuietBed(t testing.TB) (*hostBed, *worker, *attachment) {
	d := newOutsideBed(t, 1)
	if d.tally != nil {
		d.tally.blind = true
		d.mu.Lock()
		d.setTapsLocked(nil)
		d.mu.Unlock()
	}
	w, att := d.benchWorker()
	w.outside, d.local.outside = &quietOutside{}, &quietOutside{}
	d.local.port = lossyPort{d.ports[1]}
	return d, w, att
}

// unsummed returns a frame of UDP or TCP over IPv4 whose checksum is left to whoever sends it, so that its ports may be changed.
func unsummed(p packettest.Packet) []byte {
	frame := p.Frame()
	field := uint16(6)
	if p.Proto == packet.TCP {
		field = 16
	}
	packet.Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: field}.Encode(frame)
	return frame
}

// TestOutsideNoAllocs: no packet to the outside or from there allocates, be it the first one, a later one or refused.
func TestOutsideNoAllocs(t *testing.T) {
	d, w, att := newQuietBed(t)
	var port uint16
	var p packet.Parsed
	for _, tt := range []struct {
		name string
		from string
		sent packettest.Packet
		many bool // each packet opens a flow
	}{
		{"out", "a", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53}, false},
		{"out, new flows", "a", packettest.Packet{Src: podA, Dst: server, DstPort: 53}, true},
		{"answers", "outside", packettest.Packet{Src: server, Dst: podA, SrcPort: 53, DstPort: 4000}, false},
		{"guarded", "a", packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: tunnelPort}, false},
		{"in", "outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080}, false},
		{"in, new flows", "outside", packettest.Packet{Src: client, Dst: hostNode, DstPort: 30080}, true},
		{"in, to a peer", "outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4001, DstPort: 30082}, false},
		{"uninvited", "outside", packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30099}, false},
		{"replies of a peer's pod", "peer", packettest.Packet{Src: farPod, Dst: gateway, SrcPort: 8080, DstPort: 4001}, false},
		{"a peer's pod", "peer", packettest.Packet{Src: farPod, Dst: hostNode, SrcPort: 4000, DstPort: 30082, Proto: packet.TCP}, false},
	} {
		frame, scratch := unsummed(tt.sent), unsummed(tt.sent)
		o, _ := packet.DecodeOffload(frame)
		parts := [][]byte{frame[packet.VnetLen:]}
		if got := testing.AllocsPerRun(1000, func() {
			if tt.many {
				port++
				binary.BigEndian.PutUint16(frame[packet.VnetLen+20:], port)
			}
			w.begin()
			switch tt.from {
			case "outside":
				d.InjectOutside(o, parts...)
			case "peer":
				copy(scratch, frame) // a peer's packet is rewritten where it lies
				packet.Parse(scratch[packet.VnetLen:], &p)
				w.fromPeer(scratch, &p, o)
			default:
				b := w.pool.Get()
				b.SetFrame(copy(b.Space(), frame))
				w.fromPod(att, b)
			}
			w.flushTrain()
		}); got != 0 {
			t.Errorf("%s: %v allocations a packet", tt.name, got)
		}
	}
	if w.outside.(*quietOutside).packets == 0 {
		t.Error("nothing left the cluster")
	}
}

// BenchmarkOutside shows what a packet costs on its way to the outside (out), and of a client to a backend (in): known flows and first
// packets. What copies and sockets cost is package proxy's.
func BenchmarkOutside(b *testing.B) {
	out := packettest.Packet{Src: podA, Dst: server, SrcPort: 4000, DstPort: 53, Payload: make([]byte, 64)}
	in := packettest.Packet{Src: client, Dst: hostNode, SrcPort: 4000, DstPort: 30080, Payload: make([]byte, 64)}
	for _, bb := range []struct {
		name  string
		sent  packettest.Packet
		out   bool
		fresh bool
	}{
		{"way=out/flow=known", out, true, false}, {"way=out/flow=new", out, true, true},
		{"way=in/flow=known", in, false, false}, {"way=in/flow=new", in, false, true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d, w, att := newQuietBed(b)
			frame := unsummed(bb.sent)
			o, _ := packet.DecodeOffload(frame)
			parts := [][]byte{frame[packet.VnetLen:]}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if bb.fresh {
					if i%1000 == 0 {
						b.StopTimer()
						d.flows.FreeIf(func(*flow.Listed) bool { return true })
						b.StartTimer()
					}
					binary.BigEndian.PutUint16(frame[packet.VnetLen+20:], uint16(1024+i%1000))
				}
				if !bb.out {
					d.InjectOutside(o, parts...)
					continue
				}
				w.begin()
				buf := w.pool.Get()
				buf.SetFrame(copy(buf.Space(), frame))
				w.fromPod(att, buf)
				w.flush()
			}
		})
	}
}
