package packet

// Sizes of a buffer, in bytes.
const (
	// Headroom is free in front of a packet that was read from a device. The offload header of the device (VnetLen), or
	// the tunnel's headers of one packet, fit in it; tunnel asserts so at compile time.
	Headroom = 128
	// MaxSize is the largest IP packet that a device hands over: a super-packet's total length has 16 bits.
	MaxSize = 65535
	// tailroom makes the slab end on a page.
	slabSize = 17 * 4096
)

// Buffer is a slab of memory with one packet in it.
//
//	0        off-VnetLen   off                              end            cap
//	|  free  |  vnet header |  IP header … payload           |  tailroom    |
//	         |<-------------- Frame ------------------------>|
//	                        |<------- Packet --------------->|
//
// Reading: a device reads a frame (vnet header and packet) so that the packet starts at Headroom. Writing: the vnet
// header is encoded over the VnetLen bytes in front of the packet. What else stands in the headroom is overwritten.
//
// Owner: whoever got the buffer from Pool.Get, until it passes the buffer to a function whose comment says that it takes
// ownership. The owner calls Release exactly once; a second Release panics.
type Buffer struct {
	slab     []byte
	off, end int
	pool     *Pool
	free     bool
}

// Packet returns the packet's bytes; they belong to the buffer's owner.
func (b *Buffer) Packet() []byte { return b.slab[b.off:b.end] }

// Frame returns the vnet header and the packet.
func (b *Buffer) Frame() []byte { return b.slab[b.off-VnetLen : b.end] }

// Space returns the slab from where a frame is read, so that its packet starts at Headroom.
func (b *Buffer) Space() []byte { return b.slab[Headroom-VnetLen:] }

// SetFrame says that a frame of n bytes was read into Space.
func (b *Buffer) SetFrame(n int) { b.off, b.end = Headroom, Headroom-VnetLen+n }

// Trim cuts padding behind a packet of n bytes.
func (b *Buffer) Trim(n int) { b.end = b.off + n }

// Prepend makes room for n bytes in front of the packet, n at most Headroom, and returns room and packet. The packet then
// starts with the room.
func (b *Buffer) Prepend(n int) []byte {
	b.off -= n
	return b.Packet()
}

// Release gives the buffer back to its pool. The caller no longer owns it.
func (b *Buffer) Release() {
	if b.free {
		panic("packet: buffer released twice")
	}
	b.free = true
	b.pool.free = append(b.pool.free, b)
}

// Pool is the last-in-first-out list of the buffers of one worker, so that the memory just used, still in the processor's
// cache, is used next. It grows on demand and never shrinks: a worker runs a packet to its end, so that it owns only as
// many buffers as one batch toward peers. It is not safe for concurrent use.
type Pool struct {
	free []*Buffer
	made int
}

// Get returns a buffer; the caller owns it.
func (p *Pool) Get() *Buffer {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		b.free = false
		return b
	}
	p.made++
	return &Buffer{slab: make([]byte, slabSize), off: Headroom, end: Headroom, pool: p}
}

// Made returns how many buffers the pool has made.
func (p *Pool) Made() int { return p.made }
