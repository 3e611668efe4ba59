package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendNow gives a socket data, without waiting, and returns how much it took.
func sendNow(fd int, b []byte) (int, unix.Errno) {
	return transfer(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// receiveNow takes data from a socket, without waiting.
func receiveNow(fd int, b []byte) (int, unix.Errno) {
	return transfer(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
}

// transfer makes a call that does not sleep, of which the scheduler need not know.
func transfer(trap uintptr, fd int, b []byte, flags uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// chunk is a part of a stream that lies in a buffer of joinBuffers, or in memory of its own.
type chunk struct {
	b   []byte
	buf *[joinBuffer]byte // nil: its own
}

func (c *chunk) release() {
	if c.buf != nil {
		joinBuffers.Put(c.buf)
	}
	*c = chunk{}
}

// chunks is a part of a stream, in order. The zero value is empty.
type chunks struct {
	all []chunk
	at  int // of the first that is not released
	n   int // bytes
}

func (q *chunks) len() int { return q.n }

func (q *chunks) empty() bool { return q.n == 0 }

// front returns the first chunk's bytes, none if there is none.
func (q *chunks) front() []byte {
	if q.empty() {
		return nil
	}
	return q.all[q.at].b
}

// add copies b to the end.
func (q *chunks) add(b []byte) {
	q.n += len(b)
	if last := len(q.all) - 1; last >= q.at && q.all[last].buf != nil {
		c := &q.all[last]
		from := cap(c.b) - len(c.b) // room behind what lies there
		n := min(from, len(b))
		c.b, b = append(c.b, b[:n]...), b[n:]
	}
	for len(b) > 0 {
		buf := joinBuffers.Get().(*[joinBuffer]byte)
		n := copy(buf[:], b)
		q.push(chunk{buf[:n], buf})
		b = b[n:]
	}
}

// hold takes n bytes that were read into buf, which it takes too, and returns them. A part of a buffer goes where the last one has room.
func (q *chunks) hold(buf *[joinBuffer]byte, n int) []byte {
	c := chunk{buf[:n], buf}
	if last := len(q.all) - 1; last >= q.at && n <= joinBuffer/4 {
		if l := &q.all[last]; cap(l.b)-len(l.b) >= n {
			l.b = append(l.b, buf[:n]...)
			joinBuffers.Put(buf)
			q.n += n
			return l.b[len(l.b)-n:]
		}
	}
	if n <= smallData {
		defer joinBuffers.Put(buf)
		size := n
		if !q.empty() {
			size = smallData // more of the kind may come
		}
		c = chunk{b: append(make([]byte, 0, size), buf[:n]...)}
	}
	q.n += n
	q.push(c)
	return c.b
}

func (q *chunks) push(c chunk) {
	if len(q.all) == cap(q.all) && q.at > len(q.all)/2 {
		n := copy(q.all, q.all[q.at:])
		clear(q.all[n:])
		q.all, q.at = q.all[:n], 0
	}
	q.all = append(q.all, c)
}

// release forgets the first n bytes, or all there are.
func (q *chunks) release(n int) {
	for n > 0 && q.n > 0 {
		c := &q.all[q.at]
		if n < len(c.b) {
			c.b = c.b[n:]
			q.n -= n
			return
		}
		n -= len(c.b)
		q.n -= len(c.b)
		c.release()
		q.at++
	}
	if q.n == 0 {
		q.all, q.at = q.all[:0], 0
	}
}

func (q *chunks) clear() { q.release(q.n) }
