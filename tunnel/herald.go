package tunnel

import (
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// herald sends the messages of the checks, from a socket of its own. It is for one goroutine.
type herald struct {
	conn    *udp.Conn
	batch   *udp.Batch
	heads   [3 + rungs + trainLen][vxlan.Overhead + hello.LeastProbe]byte
	padding []byte
}

func newHerald(t *Tunnel) (*herald, error) {
	conn, err := udp.Listen(t.socket(udp.Config{Local: netip.AddrPortFrom(t.config.Local, 0), SendOnly: true}))
	if err != nil {
		return nil, err
	}
	return &herald{conn: conn, batch: udp.NewBatch(conn), padding: make([]byte, t.config.MTU)}, nil
}

// send sends m once as it is if there are no probes, else once for each: those that belong to a train as one.
func (h *herald) send(p *peer, m hello.Message, probes []probe) {
	if probes == nil {
		h.batch.Begin(p.to)
		h.part(0, p, m, m.Len())
		h.batch.End(0, packet.NotECT)
	}
	for i := 0; i < len(probes); i++ {
		h.batch.Begin(p.to)
		m.Part, m.Length = uint8(i), uint16(probes[i].size)
		h.part(i, p, m, probes[i].size)
		segment := 0
		for ; probes[i].train && i+1 < len(probes); i++ {
			m.Part, segment = uint8(i+1), vxlan.Overhead+probes[i].size
			h.part(i+1, p, m, probes[i+1].size)
		}
		h.batch.End(segment, packet.NotECT)
	}
	h.batch.Flush(func(int, int, error) {}) // what was not sent does not arrive
}

// part adds a message of size bytes to the datagram or train under way.
func (h *herald) part(i int, p *peer, m hello.Message, size int) {
	head := h.heads[i][:vxlan.Overhead+m.Len()]
	outer := p.header
	outer.Type = vxlan.EtherTypeLocal
	outer.Encode(head)
	m.Encode(head[vxlan.Overhead:])
	h.batch.Part(head)
	h.batch.Part(h.padding[:size-m.Len()])
}
