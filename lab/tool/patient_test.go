package tool

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// faults are errors that come first, one a call.
type faults []error

func (f *faults) next() (err error) {
	if len(*f) > 0 {
		err, *f = (*f)[0], (*f)[1:]
	}
	return err
}

type faultyListener struct {
	net.Listener
	faults
}

func (l *faultyListener) Accept() (net.Conn, error) {
	if err := l.next(); err != nil {
		return nil, err
	}
	return l.Listener.Accept()
}

type faultyPacketConn struct {
	net.PacketConn
	faults
}

func (c *faultyPacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	if err := c.next(); err != nil {
		return 0, nil, err
	}
	return c.PacketConn.ReadFrom(p)
}

// served is one of the servers, and where to ask it.
type served struct {
	target string
	server interface {
		io.Closer
		Done() <-chan struct{}
	}
}

// faultyServers returns one of each kind, whose socket has faults. say is told of those that are waited out.
func faultyServers(t *testing.T, say func(error), f ...error) []served {
	t.Helper()
	web, streams := listen(t), listen(t)
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return []served{
		{"http://" + web.Addr().String() + "/healthz", Serve(PatientListener(&faultyListener{web, f}, say))},
		{"tcp://" + streams.Addr().String(), EchoStreams(PatientListener(&faultyListener{streams, f}, say))},
		{"udp://" + datagrams.LocalAddr().String(), EchoDatagrams(PatientPacketConn(&faultyPacketConn{datagrams, f}, say))},
	}
}

// What passes by itself is told once, and the server goes on.
func TestServersWait(t *testing.T) {
	full := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)} // no descriptor is left
	var told atomic.Int64
	for _, s := range faultyServers(t, func(err error) {
		told.Add(1)
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("told of %v", err)
		}
	}, full, full, full) {
		told.Store(0)
		if got, _, err := fetch(t, s.target, FetchConfig{Body: []byte("x"), Method: "GET"}); err != nil || !got.OK() {
			t.Errorf("%s: got %v, %+v", s.target, err, got)
		}
		select {
		case <-s.server.Done():
			t.Errorf("%s has ended", s.target)
		default:
		}
		if err := s.server.Close(); err != nil {
			t.Errorf("%s: %v", s.target, err)
		}
	}
}

// What does not pass ends the server, and Close says why.
func TestServersFail(t *testing.T) {
	broken := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EINVAL)}
	for _, s := range faultyServers(t, func(err error) { t.Errorf("told of %v", err) }, broken) {
		select {
		case <-s.server.Done():
		case <-time.After(10 * time.Second):
			t.Errorf("%s has not ended", s.target)
		}
		if err := s.server.Close(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: got %v", s.target, err)
		}
	}
}

// Failures soon after another are told of by the first, though the server comes to something in between.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		p := patience{say: func(err error) { told = append(told, err.Error()) }}
		for _, err := range []error{syscall.EMFILE, syscall.ENFILE, nil, syscall.ENFILE, net.ErrClosed, syscall.ENFILE} {
			if got, want := p.again(err), err != nil && !errors.Is(err, net.ErrClosed); got != want {
				t.Errorf("%v: got %v, want %v", err, got, want)
			}
		}
		time.Sleep(patienceOver)
		p.again(syscall.ENOBUFS)
		if got, want := strings.Join(told, "; "), syscall.EMFILE.Error()+"; "+syscall.ENOBUFS.Error(); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
