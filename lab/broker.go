package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/unixsock"
)

// brokerFD is the descriptor by which a process that Enter has started reaches the one that called it.
const brokerFD = 3

// toBroker is that connection; nil outside of a lab. A message on it asks to serve a unix socket: with it come the listening
// socket, and a pipe that ends when nobody wants it any more.
var toBroker struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

var errNotEntered = errors.New("serve sockets: this program has not called lab.Enter, so nobody is outside of the lab")

// keepBroker takes the descriptor over before a child could inherit it.
func keepBroker() error {
	unix.CloseOnExec(brokerFD)
	file := os.NewFile(brokerFD, "broker")
	defer file.Close()
	conn, err := unixConn(file)
	if err != nil {
		return fmt.Errorf("use the socket out of the lab: %w", err)
	}
	toBroker.conn = conn
	return nil
}

func unixConn(file *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// ServeSockets makes the process that called Enter, which is in the machine's own network namespace, hand sockets in at path
// (package parent) until the result is closed or this process ends. The unix socket at path stays; it is the caller's to remove.
func ServeSockets(path string) (io.Closer, error) {
	toBroker.mu.Lock()
	defer toBroker.mu.Unlock()
	if toBroker.conn == nil {
		return nil, errNotEntered
	}
	l, err := parent.Listen(path)
	if err != nil {
		return nil, err
	}
	defer l.UnixListener.Close() // its duplicate goes on, and the path stays
	file, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("serve sockets: %w", err)
	}
	defer file.Close()
	ended, wanted, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("serve sockets: %w", err)
	}
	defer ended.Close()
	if err := unixsock.Send(toBroker.conn, []byte{0}, int(file.Fd()), int(ended.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("serve sockets: ask the process outside of the lab: %w", err), wanted.Close())
	}
	return wanted, nil
}

// newBroker returns both ends of the connection between the process that calls Enter and the one inside.
func newBroker() (outside *net.UnixConn, inside *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket into the lab: %w", err)
	}
	inside, file := os.NewFile(uintptr(pair[0]), "broker"), os.NewFile(uintptr(pair[1]), "broker")
	defer file.Close()
	if outside, err = unixConn(file); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("use the socket into the lab: %w", err), inside.Close())
	}
	return outside, inside, nil
}

// runBroker serves what the process inside asks for until it ends.
func runBroker(conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	defer served.Wait()
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for {
		r := unixsock.NewReader(conn, 2)
		n, err := r.Read(make([]byte, 1))
		fds := r.Take()
		if err == nil && len(fds) != 2 {
			err = fmt.Errorf("%d descriptors came, want a listening socket and a pipe", len(fds))
		}
		if err != nil {
			unixsock.Close(fds...)
			if n == 0 {
				return
			}
			log.Error("sockets are not served", "err", err)
			continue
		}
		listener, ended := os.NewFile(uintptr(fds[0]), "listener"), os.NewFile(uintptr(fds[1]), "ended")
		served.Go(func() { serveUntil(ctx, listener, ended, log) })
	}
}

// serveUntil hands sockets of this process's namespace out until ctx or the pipe ends.
func serveUntil(ctx context.Context, file, ended *os.File, log *slog.Logger) {
	defer ended.Close()
	l, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return // the clients are told that nobody serves it
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = ended.Read(make([]byte, 1)) // until its other end, or this one, is closed
		cancel()
	}()
	if err := parent.Serve(ctx, l.(*net.UnixListener), log); err != nil {
		log.Error("sockets are not served any more", "err", err)
	}
}
