package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/middleway-net/middleway/stack/packet"
)

// linkEndpoint is gVisor's way to the workers: an interface without layer 2 that takes super-packets. It is also its own
// queueing discipline, which queues nothing: gVisor's default makes a list for every packet.
type linkEndpoint struct {
	mtu        atomic.Uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher] // nil: what comes in is dropped
	parts      sync.Pool                               // *[][]byte
	own        map[tcpip.Address]bool                  // the node's addresses

	mu     sync.RWMutex // held for reading while inject runs, so that disconnect waits for the last
	inject Inject       // nil: what is sent is dropped
	joined bool         // connect was called; stays true after disconnect
}

var (
	_ stack.LinkEndpoint       = (*linkEndpoint)(nil)
	_ stack.GSOEndpoint        = (*linkEndpoint)(nil)
	_ stack.QueueingDiscipline = (*linkEndpoint)(nil)
)

func (e *linkEndpoint) connect(inject Inject) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inject, e.joined = inject, true
}

// disconnect returns after the last call of inject has returned.
func (e *linkEndpoint) disconnect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inject = nil
}

func (e *linkEndpoint) wasConnected() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.joined
}

// WritePackets sends packets; gVisor owns them.
func (e *linkEndpoint) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range list.AsSlice() {
		if err := e.WritePacket(pkt); err != nil {
			return i, err
		}
	}
	return list.Len(), nil
}

// WritePacket sends a packet, which gVisor owns, in the parts in which it lies in memory.
func (e *linkEndpoint) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	if e.own[pkt.EgressRoute.RemoteAddress] {
		e.loop(pkt)
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.inject == nil {
		return &tcpip.ErrClosedForSend{}
	}
	pooled, _ := e.parts.Get().(*[][]byte)
	if pooled == nil {
		pooled = new([][]byte)
	}
	parts := (*pooled)[:0]
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) { // unused room for headers
			skip -= len(b)
			continue
		}
		parts = append(parts, b[skip:])
		skip = 0
	}
	e.inject(offloadOf(pkt), parts...)
	clear(parts)
	*pooled = parts
	e.parts.Put(pooled)
	return nil
}

// loop gives the node a packet of its own to itself. TCP queues what it gets, so that this does not go round.
func (e *linkEndpoint) loop(pkt *stack.PacketBuffer) {
	if d := e.dispatcher.Load(); d != nil {
		deliverTo(*d, pkt.NetworkProtocolNumber, pkt.ToBuffer())
	}
}

// offloadOf says what gVisor left unfinished: of a TCP segment with data the checksum, and its segmentation if it is
// longer than the MSS. Other packets are complete, see Capabilities.
func offloadOf(pkt *stack.PacketBuffer) packet.Offload {
	g := &pkt.GSOOptions
	if g.Type == stack.GSONone || !g.NeedsCsum {
		return packet.Offload{}
	}
	o := packet.Offload{
		NeedsChecksum: true, HeaderLen: uint16(pkt.HeaderSize()),
		ChecksumStart: g.L3HdrLen, ChecksumOffset: g.CsumOffset,
	}
	if g.MSS == 0 || pkt.Data().Size() <= int(g.MSS) {
		return o
	}
	o.Size = g.MSS
	switch g.Type {
	case stack.GSOTCPv4:
		o.GSO = packet.GSOTCP4
	case stack.GSOTCPv6:
		o.GSO = packet.GSOTCP6
	}
	return o
}

// Capabilities: what comes in was verified by the worker. What goes out is not offloaded by capability: gVisor would then
// leave the checksums of UDP and of bare ACKs at zero, not at the pseudo-header's sum, and would leave them so in fragments,
// where nobody can put them right. TCP data is offloaded all the same, by SupportedGSO.
func (e *linkEndpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// SupportedGSO lets TCP hand over super-packets with unfinished checksums.
func (e *linkEndpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize is the most that a total length of 16 bits says.
func (e *linkEndpoint) GSOMaxSize() uint32 { return packet.MaxSize }

// Attach is called by gVisor when the interface is made, and with nil when it is removed.
func (e *linkEndpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// IsAttached reports whether packets are taken.
func (e *linkEndpoint) IsAttached() bool { return e.dispatcher.Load() != nil }

// MTU returns the largest packet that is not a super-packet, in bytes.
func (e *linkEndpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU changes the MTU of connections to come.
func (e *linkEndpoint) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// The rest is for links that have a layer 2 or goroutines.

func (e *linkEndpoint) MaxHeaderLength() uint16                 { return 0 }
func (e *linkEndpoint) LinkAddress() tcpip.LinkAddress          { return "" }
func (e *linkEndpoint) SetLinkAddress(tcpip.LinkAddress)        {}
func (e *linkEndpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (e *linkEndpoint) AddHeader(*stack.PacketBuffer)           {}
func (e *linkEndpoint) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (e *linkEndpoint) Wait()                                   {}
func (e *linkEndpoint) Close()                                  {}
func (e *linkEndpoint) SetOnCloseAction(func())                 {}
