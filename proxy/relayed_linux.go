package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// Windows announced to pods, in bytes: what a socket may leave untaken waits here.
const (
	leastWindow = 64 << 10
	firstWindow = 256 << 10
	mostWindow  = 1 << 20
)

// mostHeld is how many bytes a pod is sent at most before it acknowledges any, whatever it says that it takes.
const mostHeld = 4 << 20

// A worker keeps so many bytes for its pods and their sockets; beyond that each connection has leastWindow at most in each direction.
const mostKept = 128 << 20

// windowScale is what makes mostWindow fit into a header.
const windowScale = 5

// Times of a connection whose pod does not answer.
const (
	firstTimeout = 200 * time.Millisecond // between sending and sending again, doubled each time
	lastTimeout  = 5 * time.Second
	answerWithin = 20 * time.Second // else the pod is gone
	probeEvery   = 500 * time.Millisecond
	lookEvery    = 30 * time.Second // after those whose pod is silent and has nothing to acknowledge
	lingerFor    = time.Second      // after the end, for a pod whose last segment was lost
)

// mostAsked is how often a connection is looked after in vain, the first time without a word, until its pod is taken for gone.
const mostAsked = 4

// enoughRepeats is how many acknowledgments of the same tell that a segment was lost (RFC 5681, section 3.2).
const enoughRepeats = 3

// speakBudget is how many times a connection's socket is read before the next one's turn.
const speakBudget = 16

// smallData is the most bytes that take memory of their own size; more stay in the buffer into which they were read.
const smallData = 4 << 10

// phase is how far a relayed connection is.
type phase uint8

const (
	connecting phase = iota // the socket is
	answering               // the pod was answered, and has to acknowledge that
	relaying
	lingering // both ends have ended, the socket is closed
	gone
)

// recovery is what becomes of what was lost (RFC 6582).
type recovery uint8

const (
	nothingLost recovery = iota
	recovering           // what the pod acknowledges before recovered tells that what follows was lost too
	settling             // repeated acknowledgments before recovered may be answers to what was sent again in vain
)

// relayed is a pod's TCP connection to the outside: segments on the pod's side, a socket of the node on the other, whose kernel
// keeps what the pod has sent until the outside has it. What the outside has sent is held here until the pod has it. Between the
// worker and the pod there is one device, so that no congestion is to be controlled: what is lost there is sent again, from the first byte
// on that is missing.
//
// All belongs to its exit's worker.
type relayed struct {
	e    *Exit
	flow packet.Flow // as the pod sends
	back packet.Flow
	head []byte // the headers of its SYN, for errors; until the socket is connected
	fd   int    // -1: none
	slot int32

	phase       phase
	dirty       bool // in exit.dirty
	timed       bool // in exit.timed
	acknowledge bool // the pod has to hear how far it was heard
	overtaken   int  // segments that came while an earlier one is missing, of which the pod was not told

	// What the pod sends:
	expected seq // the next byte
	edge     seq // up to where it may send
	window   int // how far edge is ahead of expected, as long as nothing waits
	credit   int // bytes taken without waiting since window grew
	scale    uint8
	waiting  chunks // for room in the socket
	podEnded bool   // it has sent its FIN
	podFirst bool   // before it was sent one
	shut     bool   // the socket was told

	// What it is sent:
	first, next seq // unacknowledged from first on; next is sent next
	room        int // what it takes from first on, in bytes
	podScale    uint8
	mss         int // of segments, in bytes
	held        chunks
	readable    bool // the socket may have something
	hung        bool // it has more than one receive call tells: an end, or urgent data
	hostEnded   bool // all that it said was read
	finSent     bool
	repeats     int // acknowledgments of first that say nothing new
	recovery    recovery
	recovered   seq // up to where the pod has to acknowledge for recovery to go on

	deadline time.Duration // on exit.now; 0: none
	timeout  time.Duration
	heardAt  time.Duration // when the pod last acknowledged something, or had nothing to
	asked    int           // how often the connection was looked after since
}

// begin opens a connection for a SYN, unless there is no room.
func (e *Exit) begin(b []byte, h *packet.Parsed) {
	e.now = e.p.tcp.clock() // of the last batch, which may be long ago
	c := &relayed{e: e, flow: h.Flow, back: h.Flow.Reverse(), fd: -1, slot: -1}
	if !e.p.tcp.admit(c) {
		return
	}
	e.conns[c.flow] = c
	c.head = append([]byte(nil), b[:h.Payload]...)
	syn := readSegment(b, h)
	o := readOffer(syn.options)
	c.expected = syn.seq + 1
	c.window, c.edge = leastWindow-1, c.expected+leastWindow-1
	if o.scales {
		c.scale, c.podScale = windowScale, o.scale
	}
	headers, least := ipHeader(c.flow.Is4())+tcpHeader, defaultMSS6
	if c.flow.Is4() {
		least = defaultMSS4
	}
	if o.mss == 0 {
		o.mss = least
	}
	c.mss = max(min(o.mss, e.p.config.MTU-headers), 64)
	if own, ok := e.p.config.Sockets.(ownSockets); ok {
		c.connect(c.socket(own))
		return
	}
	e.p.tcp.openLater(c)
}

// socket makes the connection's socket.
func (c *relayed) socket(sockets Sockets) (fd int, err error) {
	fd, err = sockets.Socket(domain(c.flow.Is4()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", errNoSocket, err)
	}
	return fd, nil
}

// connect has a socket, or the error in place of one, connected.
func (c *relayed) connect(fd int, err error) {
	if err != nil || c.phase == gone {
		if err == nil {
			_ = unix.Close(fd)
		}
		c.fail(err)
		return
	}
	c.fd = fd
	if err := setOptions(fd, streamOptions); err != nil {
		c.fail(err)
		return
	}
	to := sockaddr(netip.AddrPortFrom(c.flow.Dst(), c.flow.DstPort()))
	err = unix.Connect(fd, to)
	if err == unix.EINPROGRESS {
		err = unix.Connect(fd, to) // one nearby has answered meanwhile
	}
	if err != nil && err != unix.EALREADY && err != unix.EINPROGRESS {
		c.fail(err)
		return
	}
	if watchErr := c.e.watch(c); watchErr != nil {
		c.fail(watchErr)
		return
	}
	if err == nil {
		c.answer()
	}
}

// streamOptions are what a connection's socket is asked for. The pod has waited where it wanted to (RFC 896).
var streamOptions = []option{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}, // urgent data are part of the stream (RFC 6093, section 6)
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(hostKeepAlive.Idle / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(hostKeepAlive.Interval / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, hostKeepAlive.Count},
}

// fail ends a connection whose socket could not be connected.
func (c *relayed) fail(err error) {
	if c.phase != gone {
		c.e.p.tcp.decline(c, err)
		c.end()
	}
}

// answer finishes the pod's handshake.
func (c *relayed) answer() {
	c.phase, c.head = answering, nil
	c.e.p.tcp.count.joined.Add(1)
	c.first = seq(rand.Uint32())
	c.next = c.first + 1
	c.readable = true // whatever came before it was looked at
	c.sayAnswer()
	c.wait()
}

// sayAnswer sends the SYN that acknowledges the pod's.
func (c *relayed) sayAnswer() {
	mss := c.e.p.config.MTU - ipHeader(c.flow.Is4()) - tcpHeader
	options := [8]byte{optionMSS, 4, byte(mss >> 8), byte(mss), optionNop, optionWindow, 3, windowScale}
	n := 4
	if c.scale > 0 {
		n = 8
	}
	c.e.say(&c.back, &said{seq: c.first, ack: c.expected, flags: packet.SYN | packet.ACK, window: min(c.window, 65535), options: options[:n]})
}

// wait sets the deadline by which the pod has to acknowledge something, or to take more.
func (c *relayed) wait() {
	switch {
	case c.phase == lingering:
		return
	case c.first != c.next:
		c.waitFor(firstTimeout)
	case c.phase == relaying && c.readable && c.room == 0:
		c.waitFor(probeEvery)
	default:
		c.deadline, c.timeout = 0, 0
	}
}

func (c *relayed) waitFor(least time.Duration) {
	if c.timeout == 0 {
		c.timeout, c.heardAt = least, c.e.now
	}
	c.deadline = c.e.now + max(c.timeout, least)
	c.e.time(c)
}

// expire is called when the deadline is over.
func (c *relayed) expire() {
	c.deadline = 0
	switch {
	case c.phase == lingering:
		c.end()
	case c.e.now-c.heardAt > answerWithin:
		c.abort()
	default:
		c.timeout = min(2*c.timeout, lastTimeout)
		if c.first != c.next {
			c.recovery, c.recovered = recovering, c.next
		}
		c.sendAgain()
		c.wait()
	}
}

// lookAfter asks a pod that has been silent, and has nothing to acknowledge, whether it is still there: its kernel may have forgotten the
// connection, as it does a minute after the pod has closed one that the outside keeps.
func (c *relayed) lookAfter() {
	if c.phase != relaying || c.deadline != 0 {
		return
	}
	if c.asked++; c.asked > mostAsked {
		c.abort()
	} else if c.asked > 1 {
		c.sendAgain()
	}
}

// finish ends a connection of which both ends have ended. If the outside has ended first, the pod's last segment may have to be
// acknowledged again.
func (c *relayed) finish() {
	if c.podFirst {
		c.end()
		return
	}
	c.closeSocket(false)
	c.e.p.tcp.dismiss(c)
	c.phase = lingering
	c.deadline = c.e.now + lingerFor
	c.e.time(c)
}

// drop ends a connection that the pod has reset, or that nobody has any more: the outside gets a reset.
func (c *relayed) drop() {
	if c.phase == answering || c.phase == relaying {
		c.e.p.tcp.count.reset.Add(1)
	}
	c.closeSocket(true)
	c.end()
}

// abort resets a connection on both sides.
func (c *relayed) abort() {
	if c.phase == gone {
		return
	}
	if c.phase > connecting && c.phase < lingering {
		c.say(packet.RST|packet.ACK, c.next, nil)
	}
	c.drop()
}

// closeSocket closes the socket, by a reset if it is asked to.
func (c *relayed) closeSocket(reset bool) {
	if c.fd < 0 {
		return
	}
	if reset {
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if c.slot >= 0 {
		c.e.unwatch(c)
	}
	_ = unix.Close(c.fd)
	c.fd = -1
	c.e.kept -= c.waiting.len()
	c.waiting.clear()
}

// end forgets a connection.
func (c *relayed) end() {
	if c.phase == gone {
		return
	}
	c.closeSocket(false)
	if c.phase != lingering {
		c.e.p.tcp.dismiss(c)
	}
	c.phase, c.deadline = gone, 0
	c.e.kept -= c.held.len()
	c.held.clear()
	delete(c.e.conns, c.flow)
}
