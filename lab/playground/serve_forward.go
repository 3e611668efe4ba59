package playground

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/middleway-net/middleway/unixsock"
)

// connectWait bounds a connection inside a pod, which nothing but a full backlog keeps waiting.
const connectWait = 10 * time.Second

// attend answers when none of a pod's containers runs any more, or the cluster ends.
func (s *server) attend(conn net.Conn, p PodPort) {
	pod, err := s.cluster.podAt(p)
	if err != nil {
		s.answer(conn, reply{Error: err.Error()})
		return
	}
	gone := make(chan struct{})
	go func() { // it ends with the connection, at the latest when serve closes it
		defer close(gone)
		_, _ = conn.Read(make([]byte, 1)) // a client says nothing more
	}()
	select {
	case <-gone:
		return
	case <-pod.over:
	case <-s.cluster.ctx.Done():
	}
	s.answer(conn, reply{End: true})
}

// connect hands a client a connection that was made inside a pod.
func (s *server) connect(conn *net.UnixConn, p PodPort) {
	made, err := s.cluster.connect(p)
	if err != nil {
		s.answer(conn, reply{Error: err.Error()})
		return
	}
	defer made.Close()
	frame, err := encodeFrame(reply{Version: protocolVersion, End: true})
	if err != nil {
		s.answer(conn, reply{Error: err.Error()})
		return
	}
	raw, err := made.SyscallConn()
	if err != nil {
		s.answer(conn, reply{Error: err.Error()})
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestWait))
	_ = raw.Control(func(fd uintptr) { _ = unixsock.Send(conn, frame, int(fd)) }) // a client that has gone does not get it
}

// podAt returns the pod that a client means.
func (c *Cluster) podAt(p PodPort) (*Pod, error) {
	pod := c.Pod(p.Namespace, p.Pod)
	switch {
	case pod == nil:
		return nil, c.podNotFound(p.Namespace, p.Pod)
	case p.UID != "" && p.UID != pod.uid:
		return nil, fmt.Errorf("pod %s: %w; there is another one of that name now", pod.manifest.Key(), ErrPodEnded)
	}
	return pod, nil
}

// connect connects to a port of a pod from inside its network namespace, by the two loopback addresses in turn as containerd does it.
func (c *Cluster) connect(p PodPort) (*net.TCPConn, error) {
	pod, err := c.podAt(p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, connectWait)
	defer cancel()
	var errs []error
	for _, at := range []struct{ network, host string }{{"tcp4", "127.0.0.1"}, {"tcp6", "::1"}} {
		made, err := pod.ns.Dial(ctx, at.network, net.JoinHostPort(at.host, strconv.Itoa(int(p.Port))))
		if err == nil {
			return made.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to localhost:%d inside pod %s: %w", p.Port, pod.manifest.Key(), reason(errs))
}

// reason returns the kernel's word on connections that failed, the first one's.
func reason(errs []error) error {
	if errno := syscall.Errno(0); errors.As(errs[0], &errno) {
		return errno
	}
	return errs[0]
}
