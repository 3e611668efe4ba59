package tool

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// PatientListener returns a listener that waits out failures of Accept that pass by themselves. say is told of the
// first of them, and of the next one after ten seconds without any.
func PatientListener(l net.Listener, say func(error)) net.Listener {
	return &patientListener{l, patience{say: say}}
}

// PatientPacketConn is PatientListener for ReadFrom.
func PatientPacketConn(c net.PacketConn, say func(error)) net.PacketConn {
	return &patientPacketConn{c, patience{say: say}}
}

type patientListener struct {
	net.Listener
	patience
}

func (l *patientListener) Accept() (c net.Conn, err error) {
	for {
		if c, err = l.Listener.Accept(); !l.again(err) {
			return c, err
		}
	}
}

type patientPacketConn struct {
	net.PacketConn
	patience
}

func (c *patientPacketConn) ReadFrom(p []byte) (n int, from net.Addr, err error) {
	for {
		if n, from, err = c.PacketConn.ReadFrom(p); !c.again(err) {
			return n, from, err
		}
	}
}

// patienceWait is the time between two tries: short enough for a server that is to end meanwhile.
const patienceWait = 50 * time.Millisecond

// patienceOver is how long nothing may fail until the next failure is told of.
const patienceOver = 10 * time.Second

// patience is for one goroutine.
type patience struct {
	say  func(error)
	last time.Time // of a failure
}

// again waits and reports true where a failure passes by itself.
func (p *patience) again(err error) bool {
	if !passes(err) {
		return false
	}
	now := time.Now()
	if now.Sub(p.last) > patienceOver {
		p.say(err)
	}
	p.last = now
	time.Sleep(patienceWait)
	return true
}

// passing are errors of a machine that is short of something, and those that accept(2) hands on from the network of a connection that
// came to nothing.
var passing = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
	syscall.ECONNABORTED, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.ENETDOWN, syscall.EHOSTDOWN,
	syscall.EHOSTUNREACH, syscall.ENETUNREACH,
}

func passes(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(passing, errno)
}
