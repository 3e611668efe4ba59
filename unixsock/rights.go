package unixsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFDs is the kernel's bound on descriptors in one message (SCM_MAX_FD).
const MaxFDs = 253

// Send sends b, not empty, with descriptors beside its first byte. They stay the caller's.
func Send(conn *net.UnixConn, b []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) { // the rights have gone with the first part
		_, err = conn.Write(b[n:])
	}
	return err
}

// Reader reads bytes from a connection and keeps the descriptors that come beside them.
type Reader struct {
	conn    *net.UnixConn
	room    int // descriptors that may come
	control []byte
	fds     []int
}

// NewReader returns a Reader that takes as many descriptors, at most MaxFDs, in all its life. The caller closes it.
func NewReader(conn *net.UnixConn, room int) *Reader {
	return &Reader{conn: conn, room: room, control: make([]byte, unix.CmsgSpace(4*room))}
}

// Read reads bytes as an io.Reader does. More descriptors than there is room for, here or in this process, and ancillary data that
// is none, are errors; n tells then too how many bytes have come.
func (r *Reader) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, controlLen, flags, _, err := r.conn.ReadMsgUnix(b, r.control) // sets MSG_CMSG_CLOEXEC
	switch {
	case errors.Is(err, io.EOF), err == nil && n == 0:
		return 0, io.EOF
	case err != nil: // then n is negative
		return 0, err
	}
	fds, bad := parseRights(r.control[:controlLen])
	r.fds = append(r.fds, fds...)
	if flags&unix.MSG_CTRUNC != 0 || len(r.fds) > r.room {
		return n, fmt.Errorf("more than %d descriptors came, or this process has no room for them", r.room)
	}
	return n, bad
}

// Take returns the descriptors that have come. They are close-on-exec, and the caller's from now on.
func (r *Reader) Take() []int {
	fds := r.fds
	r.room -= len(fds)
	r.fds = nil
	return fds
}

// Close closes the descriptors that were not taken. The connection stays open.
func (r *Reader) Close() {
	Close(r.fds...)
	r.fds = nil
}

// Close closes descriptors.
func Close(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
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
	if err != nil {
		err = fmt.Errorf("other ancillary data than descriptors came: %w", err)
	}
	return fds, err
}

// Peer returns the process that connected, or that listened, as it was then.
func Peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("ask who the other side is: %w", err)
	}
	return cred, nil
}

// CheckUser lets a process of this process's own user through, whatever user namespace it is in.
func CheckUser(conn *net.UnixConn) error {
	peer, err := Peer(conn)
	if err != nil {
		return err
	}
	if own := os.Geteuid(); int(peer.Uid) != own {
		return fmt.Errorf("process %d belongs to user %d; this socket is for processes of user %d alone", peer.Pid, peer.Uid, own)
	}
	return nil
}
