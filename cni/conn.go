package cni

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/unixsock"
)

// conn sends and receives messages with descriptors.
type conn struct{ *net.UnixConn }

// send sends a message; the descriptors stay the caller's.
func (c conn) send(v any, fds ...int) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return unixsock.Send(c.UnixConn, b, fds...)
}

// receive receives a message into v and its descriptors, which become the caller's. At the end of the connection it is
// io.EOF.
func (c conn) receive(v any) (fds []int, err error) {
	r := unixsock.NewReader(c.UnixConn, unixsock.MaxFDs)
	defer r.Close()
	header := make([]byte, headerLen)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	n, err := bodyLen(header)
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if err := decode(body, v); err != nil {
		return nil, err
	}
	return r.Take(), nil
}

// hungUp reports whether the other side has closed the connection and everything that it said was read.
func (c conn) hungUp() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	n, peek := 0, error(nil)
	err = raw.Control(func(fd uintptr) {
		n, _, peek = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err != nil || n <= 0 && !errors.Is(peek, unix.EAGAIN)
}
