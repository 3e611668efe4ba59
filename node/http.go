package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// DefaultHTTP is where a daemon serves health and metrics by default: on the node alone.
const DefaultHTTP = "127.0.0.1:9473"

// noHTTP is the value of an address that turns off what is served there.
const noHTTP = "none"

// healthTimeout is how long the workers may take to answer /healthz. A batch takes well under a millisecond.
const healthTimeout = 5 * time.Second

// httpServer serves /healthz, /readyz and /metrics, in a cluster from before there is a node to tell of: what asks there shall not end a
// daemon that waits.
type httpServer struct {
	listener net.Listener            // nil if it is turned off
	server   *http.Server            // nil as listener
	errors   *log.Logger             // of the server; nil: the standard one
	served   chan error              // of the server, once it runs
	node     atomic.Pointer[serving] // nil before it runs
	waits    atomic.Pointer[string]  // what the start waits for; nil: nothing
	ready    atomic.Bool             // everything was built and runs
}

// serving is a node that runs, and its metrics.
type serving struct {
	*Node
	metrics http.Handler
}

// open serves at the address from now on, unless it does already.
func (s *httpServer) open(addr string) error {
	if addr == noHTTP || s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("listen tcp %s: another program has this port", addr)
	}
	if err != nil {
		return fmt.Errorf("serve health and metrics: %w; choose another address by http, or turn it off by http: none", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	s.listener, s.served = l, make(chan error, 1)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: s.errors}
	s.server = server
	go func() { s.served <- server.Serve(l) }()
	return nil
}

// httpPatience is how long a daemon that waits may take to leave the address to this one.
const httpPatience = time.Second

func (n *Node) listenHTTP() (err error) {
	for end := time.Now().Add(httpPatience); ; time.Sleep(stateInterval) {
		if err = n.http.open(n.config.HTTP); err == nil || !n.config.Kubernetes.hasAPI() || time.Now().After(end) {
			return err
		}
	}
}

// listenEarly is listenHTTP for a node of a cluster that may have to wait for something: a former daemon, which had the address, has ended
// now. If somebody else has it, listenHTTP tells.
func (n *Node) listenEarly() error {
	if n.config.Kubernetes.hasAPI() {
		_ = n.http.open(n.config.HTTP)
	}
	return nil
}

// serveHealth answers 200 while every worker comes round to its next batch, else 503: a daemon that should be started again. One that
// waits is not to be.
func (s *httpServer) serveHealth(w http.ResponseWriter, r *http.Request) {
	n := s.node.Load()
	if n == nil {
		answer(w, nil)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	answer(w, n.stack.Healthy(ctx))
}

// serveReady answers 200 once pods can be attached and reached, from the host too, else 503.
func (s *httpServer) serveReady(w http.ResponseWriter, _ *http.Request) {
	if n := s.node.Load(); n != nil {
		answer(w, n.readiness())
		return
	}
	answer(w, s.starting())
}

// starting says why there is no node yet.
func (s *httpServer) starting() error {
	if waits := s.waits.Load(); waits != nil {
		return errors.New(*waits)
	}
	return errors.New("the node is starting or ending")
}

func (s *httpServer) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if n := s.node.Load(); n != nil {
		n.metrics.ServeHTTP(w, r)
		return
	}
	answer(w, s.starting())
}

// readiness returns why pods cannot be attached and reached, nil if they can.
func (n *Node) readiness() error {
	if !n.http.ready.Load() {
		return errors.New("the node is starting or ending")
	}
	if n.host.device != "" {
		if _, missing := n.host.look(); missing != "" {
			return errors.New(missing + "; the host does not reach all pods")
		}
	}
	return n.cluster.ready()
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, strings.ReplaceAll(err.Error(), "\n", "; ")+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// run answers for a node until ctx ends.
func (s *httpServer) run(ctx context.Context, n *Node) error {
	if s.listener == nil {
		return nil
	}
	s.node.Store(&serving{n, promhttp.HandlerFor(n.registry(), promhttp.HandlerOpts{})})
	select {
	case <-ctx.Done():
		s.waits.Store(nil)
		s.node.Store(nil)
		return nil
	case err := <-s.served:
		s.served <- err
		return fmt.Errorf("serve health and metrics: %w", err)
	}
}

// close ends the server.
func (s *httpServer) close() error {
	if s.listener == nil {
		return nil
	}
	_ = s.server.Close() // of a listener that may not be its yet
	err := s.listener.Close()
	<-s.served
	s.listener = nil
	if !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
