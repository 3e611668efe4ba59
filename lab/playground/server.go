package playground

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/unixsock"
)

// server answers on the control socket.
type server struct {
	cluster  *Cluster
	listener *unixsock.Listener
	tasks    sync.WaitGroup // of those that must have ended before the nodes go

	mu      sync.Mutex
	ended   bool
	waiting []net.Conn // of those who asked for the end
	execs   map[execution]bool
}

// execution is a command of a client: a *lab.Process.
type execution interface {
	Start() error
	Signal(os.Signal) error
	Wait() error
}

// listen makes the control socket, which its owner alone may use.
func (c *Cluster) listen() error {
	path := c.dir.join(socketName)
	l, err := unixsock.Listen(path)
	if err != nil {
		return fmt.Errorf("listen for commands at %s: %w", path, err)
	}
	c.server = &server{cluster: c, listener: l, execs: map[execution]bool{}}
	c.server.tasks.Go(c.server.accept)
	return nil
}

func (s *server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for example
			continue
		}
		s.tasks.Go(func() { s.serve(conn) })
	}
}

// requestWait bounds the arrival of a request, so that no silent client keeps the cluster from its end.
const requestWait = 5 * time.Second

func (s *server) serve(conn *net.UnixConn) {
	_ = conn.SetReadDeadline(time.Now().Add(requestWait)) // without one, closing ends it
	req, files, err := receiveRequest(conn)
	_ = conn.SetReadDeadline(time.Time{})
	defer closeFiles(files)
	if err != nil {
		s.answer(conn, reply{Error: err.Error()})
		conn.Close()
		return
	}
	switch req.Verb {
	case verbDown:
		s.mu.Lock()
		s.waiting = append(s.waiting, conn)
		s.mu.Unlock()
		s.cluster.stop()
		return
	case verbStatus:
		st := s.cluster.Status()
		s.answer(conn, reply{Status: &st})
	case verbLogs:
		s.logs(conn, *req.Logs)
	case verbExec:
		s.exec(conn, *req.Exec, [streams]*os.File(files))
	case verbList:
		s.list(conn, *req.Query)
	case verbWatch:
		s.watch(conn, *req.Query)
	case verbApply:
		s.apply(conn, *req.Apply)
	case verbDelete:
		s.delete(conn, *req.Delete)
	case verbScale:
		s.scale(conn, *req.Scale)
	case verbAttend:
		s.attend(conn, *req.PodPort)
	case verbConnect:
		s.connect(conn, *req.PodPort)
	}
	conn.Close()
}

// answer sends a reply; a client that has gone does not get it.
func (s *server) answer(conn net.Conn, r reply) { _ = s.send(conn, r) }

// send sends a reply to a client that may have gone, or does not read.
func (s *server) send(conn net.Conn, r reply) error {
	r.Version = protocolVersion
	_ = conn.SetWriteDeadline(time.Now().Add(requestWait))
	return writeFrame(conn, r)
}

// exec runs a command in a pod until it ends or the client goes.
func (s *server) exec(conn *net.UnixConn, req ExecRequest, files [streams]*os.File) {
	p, err := s.cluster.command(req, files)
	if err == nil {
		err = s.start(p)
	}
	if err != nil {
		r := reply{Error: err.Error()}
		if failed := (*lab.StartError)(nil); errors.As(err, &failed) && failed.Program() {
			r.Exit = &failed.Code
		}
		s.answer(conn, r)
		return
	}
	s.answer(conn, reply{})
	go func() { // it ends with the connection, at the latest when serve closes it
		for {
			var sig signal
			if err := readFrame(conn, &sig); err != nil {
				_ = p.Kill() // it has ended otherwise
				return
			}
			if sig.Signal > 0 && sig.Signal < 65 {
				_ = p.Signal(syscall.Signal(sig.Signal))
			}
		}
	}()
	code := exitCode(p.Wait())
	s.mu.Lock()
	delete(s.execs, p)
	s.mu.Unlock()
	s.answer(conn, reply{Exit: &code})
}

// start starts a command unless the end has begun. As a start may take its time, nobody waits for it but the end.
func (s *server) start(p execution) error {
	if s.ends() {
		return errStopped
	}
	if err := p.Start(); err != nil {
		return err
	}
	if !s.keep(p) {
		_ = p.Signal(os.Kill) // it has ended otherwise
		_ = p.Wait()
		return errStopped
	}
	return nil
}

func (s *server) ends() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// keep reports whether a command may go on, to be killed when the end begins; else the end has begun.
func (s *server) keep(p execution) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.execs[p] = true
	}
	return !s.ended
}

// command prepares a command of a client.
func (c *Cluster) command(req ExecRequest, files [streams]*os.File) (*lab.Process, error) {
	pod := c.Pod(req.Namespace, req.Pod)
	if pod == nil {
		return nil, c.podNotFound(req.Namespace, req.Pod)
	}
	container, err := pod.container(req.Container)
	if err != nil {
		return nil, err
	}
	own, err := container.running()
	if err != nil {
		return nil, err
	}
	var term []string
	if req.Terminal != "" {
		term = []string{"TERM=" + req.Terminal}
	}
	p := container.beside(own, req.Command, term...)
	p.Streams, p.Terminal = (*[streams]*os.File)(&files), req.Terminal != ""
	return p, nil
}

// stopServing takes no more requests and ends the commands that run.
func (s *server) stopServing() {
	s.listener.Close()
	s.mu.Lock()
	s.ended = true
	for p := range s.execs {
		_ = p.Signal(os.Kill) // it has ended otherwise
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// close tells those who asked for the end that it has come.
func (s *server) close(err error) {
	for _, conn := range s.waiting {
		r := reply{}
		if err != nil {
			r.Error = err.Error()
		}
		s.answer(conn, r)
		conn.Close()
	}
}
