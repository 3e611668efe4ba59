package bench

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/udp"
)

// Sizes of a datagram of a full train: headers that the tunnel makes, and the payload that lies in a pod's packet.
const (
	trainHead    = 22 + 20 + 32 // VXLAN and Ethernet, IPv4, TCP with timestamps
	trainPayload = podMTU - 20 - 32
	trainSegment = trainHead + trainPayload
)

// trainLengths are a lone packet, a small write, and a super-packet of a pod.
var trainLengths = []int{1, 8, relayTrain}

// BenchmarkUDPSendGSO sends one train over loopback to a socket that throws it away: as the tunnel does it, with headers
// and payloads in parts of their own, and from flat memory. Copying into flat memory is not counted.
func BenchmarkUDPSendGSO(b *testing.B) {
	for _, segments := range trainLengths {
		for _, parts := range []string{"pairs", "flat"} {
			b.Run(fmt.Sprintf("segments=%d/parts=%s", segments, parts), func(b *testing.B) {
				w := newWire(b, 4096) // less than one train: all are dropped
				b.SetBytes(int64(segments * trainSegment))
				b.ReportAllocs()
				for b.Loop() {
					w.send(segments, parts == "pairs")
				}
			})
		}
	}
}

// BenchmarkUDPRecvGRO receives from a socket in which trains wait. One operation is one system call, of up to four trains.
func BenchmarkUDPRecvGRO(b *testing.B) {
	const waiting = 32
	for _, segments := range trainLengths {
		b.Run(fmt.Sprintf("segments=%d", segments), func(b *testing.B) {
			w := newWire(b, 0)
			receiver := udp.NewReceiver(w.to)
			b.ReportAllocs()
			trains, calls, left := 0, 0, 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					for range waiting {
						w.send(segments, false)
					}
					left = waiting
					b.StartTimer()
				}
				got := len(receiver.Receive())
				if got == 0 {
					b.Fatalf("%d trains are missing", left)
				}
				left -= got
				trains += got
				calls++
			}
			b.SetBytes(int64(trains * segments * trainSegment / calls))
			b.ReportMetric(float64(trains)/float64(calls), "trains/op")
		})
	}
}

// wire is a socket that sends to another over the loopback device of a namespace.
type wire struct {
	to    *udp.Conn
	batch *udp.Batch
	addr  *udp.Addr
	b     testing.TB
	flat  []byte
}

// newWire makes a wire; buffer is the receiver's, in bytes, 0 for the default.
func newWire(b testing.TB, buffer int) *wire {
	n, err := lab.NewNamespace("wire")
	if err != nil {
		b.Fatal(err)
	}
	w := &wire{b: b, flat: make([]byte, relayTrain*trainSegment)}
	local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	var from *udp.Conn
	err = n.Do(func() error {
		if w.to, err = udp.Listen(udp.Config{Local: local, Trains: true, Buffer: buffer}); err != nil {
			return err
		}
		from, err = udp.Listen(udp.Config{Local: local})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_, _, _ = from.Close(), w.to.Close(), n.Close()
	})
	w.batch, w.addr = udp.NewBatch(from), udp.NewAddr(w.to.Local())
	return w
}

func (w *wire) send(segments int, pairs bool) {
	w.batch.Begin(w.addr)
	if pairs {
		for i := range segments {
			segment := w.flat[i*trainSegment:][:trainSegment]
			w.batch.Part(segment[:trainHead])
			w.batch.Part(segment[trainHead:])
		}
	} else {
		w.batch.Part(w.flat[:segments*trainSegment])
	}
	size := 0
	if segments > 1 {
		size = trainSegment
	}
	w.batch.End(size, packet.NotECT)
	w.batch.Flush(w.failed)
}

func (w *wire) failed(_, _ int, err error) { w.b.Error(err) }
