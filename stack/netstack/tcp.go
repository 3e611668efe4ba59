package netstack

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection that lends its buffers, so that what passes through is copied once. One goroutine may receive and
// another one send; the other methods may be called by any.
type Conn struct {
	n  *Netstack
	ep tcpip.Endpoint
	wq *waiter.Queue
	id stack.TransportEndpointID

	readable, writable           chan struct{} // have room for one
	readableEntry, writableEntry waiter.Entry
	payload                      payload // of Send

	open    atomic.Bool   // the handshake is done
	failure atomic.Uint32 // the unix.Errno for which it was ended here; 0: it was not
	doubt   doubt
}

// hangUp are the events of a connection that came to its end in both directions.
const hangUp = waiter.EventHUp | waiter.EventErr

func newConn(n *Netstack, ep tcpip.Endpoint, wq *waiter.Queue) *Conn {
	c := &Conn{n: n, ep: ep, wq: wq}
	c.readableEntry, c.readable = waiter.NewChannelEntry(waiter.ReadableEvents | hangUp)
	c.writableEntry, c.writable = waiter.NewChannelEntry(waiter.WritableEvents | hangUp)
	wq.EventRegister(&c.readableEntry)
	wq.EventRegister(&c.writableEntry)
	return c
}

// Local returns the end of the connection that the netstack has.
func (c *Conn) Local() netip.AddrPort {
	return netip.AddrPortFrom(toAddr(c.id.LocalAddress), c.id.LocalPort)
}

// Remote returns the end that the peer has.
func (c *Conn) Remote() netip.AddrPort {
	return netip.AddrPortFrom(toAddr(c.id.RemoteAddress), c.id.RemotePort)
}

// Receive waits for data, and writes what there is to w, which gets the connection's own memory: w must not keep it, must not block,
// and not call the connection. What w did not take stays: n bytes were taken, and an error of w's is returned only if n is 0. The
// error is io.EOF once the other side has sent all it had, a unix.Errno if the connection broke.
func (c *Conn) Receive(w io.Writer) (n int, err error) {
	for {
		r, err := c.ep.Read(w, tcpip.ReadOptions{})
		switch err.(type) {
		case nil:
			c.ep.ModerateRecvBuf(r.Count)
			return r.Count, nil
		case *tcpip.ErrWouldBlock:
			<-c.readable
		case *tcpip.ErrClosedForReceive:
			return 0, io.EOF
		case *tcpip.ErrBadBuffer:
			return 0, errWriter
		default:
			return 0, toError(err)
		}
	}
}

// Errors of those who gave Receive a writer and Send a reader.
var (
	errWriter = errors.New("the writer took nothing")
	errReader = errors.New("the reader had less than it said")
)

// Send waits for room, and sends as much of the size bytes that r has as there is room for; n is how much. r.Read is called
// until it has given that much; an error of r's breaks the connection. Of a connection that broke the error is a unix.Errno.
func (c *Conn) Send(r io.Reader, size int) (n int, err error) {
	c.payload = payload{r, size}
	for {
		n, err := c.ep.Write(&c.payload, tcpip.WriteOptions{})
		switch err.(type) {
		case nil:
			return int(n), nil
		case *tcpip.ErrWouldBlock:
			<-c.writable
		case *tcpip.ErrClosedForSend:
			return 0, unix.EPIPE
		case *tcpip.ErrBadBuffer:
			return 0, errReader
		default:
			return 0, toError(err)
		}
	}
}

// payload is what Send has to send.
type payload struct {
	r    io.Reader
	left int
}

func (p *payload) Len() int { return p.left }

func (p *payload) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // gVisor asks whether there is an end
	}
	n, err := p.r.Read(b)
	p.left -= n
	return n, err
}

// Wait blocks until the connection is over: closed in both directions, which is no error, or broken.
func (c *Conn) Wait() error {
	for {
		switch tcp.EndpointState(c.ep.State()) {
		case tcp.StateError:
			if err := c.ep.LastError(); err != nil {
				return toError(err)
			}
			return unix.ECONNRESET
		case tcp.StateClose, tcp.StateTimeWait, tcp.StateLastAck, tcp.StateClosing:
			return nil
		}
		<-c.readable
	}
}

// KeepAlive has a silent peer asked after idle, and again every interval; after count questions without an answer the connection
// breaks.
func (c *Conn) KeepAlive(idle, interval time.Duration, count int) error {
	i, v := tcpip.KeepaliveIdleOption(idle), tcpip.KeepaliveIntervalOption(interval)
	for _, o := range []tcpip.SettableSocketOption{&i, &v} {
		if err := c.ep.SetSockOpt(o); err != nil {
			return fmt.Errorf("set keepalive: %w", toError(err))
		}
	}
	if err := c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, count); err != nil {
		return fmt.Errorf("set keepalive: %w", toError(err))
	}
	c.ep.SocketOptions().SetKeepAlive(true)
	c.doubt.mu.Lock()
	c.doubt.idle = idle
	c.doubt.mu.Unlock()
	return nil
}

// Segments returns how many segments the connection has sent and received, acknowledgements included.
func (c *Conn) Segments() (sent, received uint64) {
	stats := c.ep.Stats().(*tcp.Stats)
	return stats.SegmentsSent.Value(), stats.SegmentsReceived.Value()
}

// CloseWrite says that nothing more will be sent.
func (c *Conn) CloseWrite() error { return toError(c.ep.Shutdown(tcpip.ShutdownWrite)) }

// Close ends the connection; what was sent still arrives.
func (c *Conn) Close() {
	c.ep.Close()
	c.n.conns.remove(c)
	c.forget()
}

// Abort resets the connection. Receive, Send and Wait return.
func (c *Conn) Abort() {
	c.ep.Abort()
	c.wake()
}

// wake ends a wait, for states in which gVisor tells nobody.
func (c *Conn) wake() {
	for _, ch := range []chan struct{}{c.readable, c.writable} {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (c *Conn) forget() {
	c.wq.EventUnregister(&c.readableEntry)
	c.wq.EventUnregister(&c.writableEntry)
}
