package cni

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// conn sends and receives messages with descriptors.
type conn struct{ *net.UnixConn }

// send sends a message; the descriptors stay the caller's.
func (c conn) send(v any, fds ...int) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(b, rights, nil)
	if err != nil {
		return err
	}
	if n < len(b) { // the rights have gone with the first part
		_, err = c.Write(b[n:])
	}
	return err
}

// receive receives a message into v and its descriptors, which become the caller's. At the end of the connection it is
// io.EOF.
func (c conn) receive(v any) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	header := make([]byte, headerLen)
	if fds, err = c.read(header, fds); err != nil {
		return fds, err
	}
	n, err := bodyLen(header)
	if err != nil {
		return fds, err
	}
	body := make([]byte, n)
	if fds, err = c.read(body, fds); err != nil {
		return fds, err
	}
	return fds, decode(body, v)
}

// read fills b and appends descriptors that came with it to fds, also when it fails.
func (c conn) read(b []byte, fds []int) ([]int, error) {
	rights := make([]byte, unix.CmsgSpace(maxFDs*4))
	for done := 0; done < len(b); {
		n, m, flags, _, err := c.ReadMsgUnix(b[done:], rights)
		more, bad := parseRights(rights[:m])
		fds = append(fds, more...)
		switch {
		case err != nil && (n == 0 && done == 0 || !errors.Is(err, io.EOF)):
			return fds, err
		case n == 0 && done == 0:
			return fds, io.EOF
		case err != nil || n == 0:
			return fds, io.ErrUnexpectedEOF
		case bad != nil:
			return fds, bad
		case flags&unix.MSG_CTRUNC != 0 || len(fds) > maxFDs:
			return fds, fmt.Errorf("more than %d descriptors came, or this process has no room for them", maxFDs)
		}
		done += n
	}
	return fds, nil
}

// parseRights returns the descriptors in ancillary data, and an error if something else was there.
func parseRights(b []byte) (fds []int, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil, fmt.Errorf("parse ancillary data: %w", err)
	}
	for i := range messages {
		more, bad := unix.ParseUnixRights(&messages[i])
		fds = append(fds, more...)
		err = errors.Join(err, bad)
	}
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
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

// peer returns the uid of the process that connected.
func (c conn) peer() (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
