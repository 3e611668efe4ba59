package stack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/flow"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/stack/service"
)

// manyServices returns a table of n Services of ten backends each, all in one pod of this node.
func manyServices(n int) *service.Table {
	all := make(map[string]*service.Service, n)
	for i := range n {
		var backends []string
		for j := range 10 {
			backends = append(backends, fmt.Sprintf("10.244.1.3:%d", 8080+j))
		}
		all[fmt.Sprint("default/many-", i)] = serving(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), "tcp:80", backends...)
	}
	return service.New(serviceRanges).With(all)
}

// BenchmarkService compares the price of a packet through a Service with that of one to the pod's own address: of a known flow, and of
// the first packet.
func BenchmarkService(b *testing.B) {
	for _, services := range []int{0, 1, 1000, 10000} {
		for _, flows := range []int{1, 1000} {
			dst, port := netip.AddrFrom4([4]byte{10, 96, 0, 0}), uint16(80)
			if services == 0 {
				dst, port = podB, 8080
			}
			b.Run(fmt.Sprintf("services=%d/flows=%d", services, flows), func(b *testing.B) {
				d := newBed(b, 1)
				d.SetServices(manyServices(max(services, 1)))
				w, att := d.benchWorker()
				frames := make([][]byte, flows)
				for i := range frames {
					to := dst
					if services > 1 {
						a := i * 7 % services
						to = netip.AddrFrom4([4]byte{10, 96, byte(a >> 8), byte(a)})
					}
					frames[i] = packettest.Packet{Src: podA, Dst: to, Proto: packet.TCP, SrcPort: uint16(4000 + i), DstPort: port, Flags: packet.ACK, Payload: make([]byte, 64)}.Super(1398)
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
}

// BenchmarkServiceExtra is what a packet through a Service costs more than one to the pod's own address: batches of both take turns, and
// the cheapest of each count, so that whatever else the machine does weighs little.
func BenchmarkServiceExtra(b *testing.B) {
	const batch = 1000
	for _, services := range []int{1, 1000, 10000} {
		for _, flows := range []int{1, 100} {
			b.Run(fmt.Sprintf("services=%d/flows=%d", services, flows), func(b *testing.B) {
				d := newBed(b, 1)
				d.SetServices(manyServices(services))
				w, att := d.benchWorker()
				frames := [2][][]byte{}
				for i := range flows {
					a := i * 7 % services
					p := packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, SrcPort: uint16(4000 + i), DstPort: 9999, Flags: packet.ACK, Payload: make([]byte, 64)}
					frames[0] = append(frames[0], p.Super(1398))
					p.Dst, p.DstPort = netip.AddrFrom4([4]byte{10, 96, byte(a >> 8), byte(a)}), 80
					frames[1] = append(frames[1], p.Super(1398))
				}
				send := func(kind int) time.Duration {
					start := time.Now()
					for i := range batch {
						w.begin()
						buf := w.pool.Get()
						buf.SetFrame(copy(buf.Space(), frames[kind][i%flows]))
						w.fromPod(att, buf)
						w.flush()
					}
					return time.Since(start)
				}
				least := [2]time.Duration{time.Hour, time.Hour}
				for b.Loop() {
					for kind := range least {
						least[kind] = min(least[kind], send(kind))
					}
				}
				b.ReportMetric(float64(least[0].Nanoseconds())/batch, "direct-ns/packet")
				b.ReportMetric(float64((least[1]-least[0]).Nanoseconds())/batch, "extra-ns/packet")
			})
		}
	}
}

// BenchmarkFirstPacket is what a flow's first packet costs, to the pod's own address and more through a Service: in turns, as in
// BenchmarkServiceExtra, each batch in a flow table that was just emptied.
func BenchmarkFirstPacket(b *testing.B) {
	const batch = 1000
	for _, services := range []int{1, 10000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			d := newBed(b, 1)
			d.SetServices(manyServices(services))
			w, att := d.benchWorker()
			p := packettest.Packet{Src: podA, Dst: podB, Proto: packet.TCP, SrcPort: 1, DstPort: 9999, Flags: packet.SYN}
			frames := [2][]byte{p.Super(1398)}
			p.Dst, p.DstPort = netip.AddrFrom4([4]byte{10, 96, 0, 0}), 80
			frames[1] = p.Super(1398)
			send := func(kind int) time.Duration {
				d.flows.FreeIf(func(*flow.Listed) bool { return true })
				start := time.Now()
				for i := range batch {
					binary.BigEndian.PutUint16(frames[kind][packet.VnetLen+20:], uint16(i))
					w.begin()
					buf := w.pool.Get()
					buf.SetFrame(copy(buf.Space(), frames[kind]))
					w.fromPod(att, buf)
					w.flush()
				}
				return time.Since(start)
			}
			least := [2]time.Duration{time.Hour, time.Hour}
			for b.Loop() {
				for kind := range least {
					least[kind] = min(least[kind], send(kind))
				}
			}
			b.ReportMetric(float64(least[0].Nanoseconds())/batch, "direct-ns/flow")
			b.ReportMetric(float64((least[1]-least[0]).Nanoseconds())/batch, "extra-ns/flow")
		})
	}
}

// BenchmarkSetServices is what one change among many Services costs, with a flow table that is full of UDP flows to them: the table,
// its swap, and the search for flows that have to end.
func BenchmarkSetServices(b *testing.B) {
	for _, c := range []struct {
		proto string
		flows int
	}{{"tcp", 20000}, {"udp", 0}, {"udp", 20000}} {
		flows := c.flows
		b.Run(fmt.Sprintf("services=10000/flows=%d/changed=%s", flows, c.proto), func(b *testing.B) {
			d := newBed(b, 1)
			table := manyServices(10000)
			d.SetServices(table)
			for i := range flows {
				if _, err := d.Trace(Probe{From: "a", Dst: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8 % 39), byte(i)}), SrcPort: uint16(1 + i), DstPort: 80, Enter: true}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				table = table.With(map[string]*service.Service{"default/many-7": serving(netip.AddrFrom4([4]byte{10, 96, 0, 7}), c.proto+":80", fmt.Sprintf("10.244.1.3:%d", 8000+i%100))})
				d.SetServices(table)
			}
		})
	}
}

// TestServiceNoAllocs: no packet to or from a Service allocates, be it the first one, refused, or answered by the worker.
func TestServiceNoAllocs(t *testing.T) {
	d := newServiceBed(t, 1)
	d.tally.blind = true
	d.dns, d.answer = keysOf([]netip.Addr{dnsVIP}), quietServer{}
	d.SetServices(randomServices())
	w, att := d.benchWorker()
	port := uint16(0)
	for _, tt := range []struct {
		name string
		packettest.Packet
		fresh bool // each packet opens a flow
	}{
		{"known", packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.ACK, Payload: make([]byte, 100)}, false},
		{"first", packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, DstPort: 80, Flags: packet.SYN}, true},
		{"first of many", packettest.Packet{Src: podA, Dst: netip.AddrFrom4([4]byte{10, 96, 1, byte(service.Random)}), DstPort: 90}, true},
		{"round robin", packettest.Packet{Src: podA, Dst: netip.AddrFrom4([4]byte{10, 96, 1, byte(service.RoundRobin)}), DstPort: 90}, true},
		{"least connections", packettest.Packet{Src: podA, Dst: netip.AddrFrom4([4]byte{10, 96, 1, byte(service.LeastConnections)}), DstPort: 90}, true},
		{"maglev", packettest.Packet{Src: podA, Dst: netip.AddrFrom4([4]byte{10, 96, 1, byte(service.Maglev)}), DstPort: 90}, true},
		{"hairpin", packettest.Packet{Src: podA, Dst: self, Proto: packet.TCP, DstPort: 80, Flags: packet.SYN}, true},
		{"SCTP", packettest.Packet{Src: podA, Dst: web, Proto: packet.SCTP, SrcPort: 4000, DstPort: 80}, false},
		{"SYN of a connection that is over", packettest.Packet{Src: podA, Dst: web, Proto: packet.TCP, SrcPort: 4001, DstPort: 80, Flags: packet.SYN | packet.RST}, false},
		{"reset", packettest.Packet{Src: podA, Dst: empty, Proto: packet.TCP, SrcPort: 4000, DstPort: 80, Flags: packet.SYN}, false},
		{"refused", packettest.Packet{Src: podA, Dst: empty, SrcPort: 4000, DstPort: 80}, false},
		{"nobody's", packettest.Packet{Src: podA, Dst: unallocated, SrcPort: 4000, DstPort: 80}, false},
		{"a ping", packettest.Packet{Src: podA, Dst: web, Proto: packet.ICMP, SrcPort: 7}, false},
		{"a query", packettest.Packet{Src: podA, Dst: dnsVIP, SrcPort: 4000, DstPort: 53, Payload: []byte("web")}, false},
	} {
		frame := tt.Frame()
		if got := testing.AllocsPerRun(1000, func() {
			if tt.fresh {
				port++
				binary.BigEndian.PutUint16(frame[packet.VnetLen+20:], port)
			}
			w.begin()
			b := w.pool.Get()
			b.SetFrame(copy(b.Space(), frame))
			w.fromPod(att, b)
			w.flush()
		}); got != 0 {
			t.Errorf("%s: %v allocations a packet", tt.name, got)
		}
	}
}

// quietServer answers every query by itself.
type quietServer struct{}

func (quietServer) Answer(out, query []byte, _ netip.Addr) (int, bool) { return copy(out, query), true }
