package node

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// httpServer serves /healthz, /readyz and /metrics.
type httpServer struct {
	listener net.Listener // nil if it is turned off
	server   http.Server
	ready    atomic.Bool // everything was built and runs
}

func (n *Node) listenHTTP() error {
	if n.config.HTTP == noHTTP {
		return nil
	}
	l, err := net.Listen("tcp", n.config.HTTP)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("listen tcp %s: another program has this port", n.config.HTTP)
	}
	if err != nil {
		return fmt.Errorf("serve health and metrics: %w; choose another address by http, or turn it off by http: none", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", n.serveHealth)
	mux.HandleFunc("GET /readyz", n.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.registry(), promhttp.HandlerOpts{}))
	n.http.listener = l
	n.http.server = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return nil
}

// serveHealth answers 200 while every worker comes round to its next batch, else 503: a daemon that should be started again.
func (n *Node) serveHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	answer(w, n.stack.Healthy(ctx))
}

// serveReady answers 200 once pods can be attached and reached, from the host too, else 503.
func (n *Node) serveReady(w http.ResponseWriter, _ *http.Request) {
	if !n.http.ready.Load() {
		answer(w, errors.New("the node is starting or ending"))
		return
	}
	if n.host.device != "" {
		if _, missing := n.host.look(); missing != "" {
			answer(w, errors.New(missing+"; the host does not reach all pods"))
			return
		}
	}
	answer(w, n.cluster.ready())
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

func (s *httpServer) run(ctx context.Context) error {
	if s.listener == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = s.server.Close() })
	defer stop()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health and metrics: %w", err)
	}
	return nil
}

func (s *httpServer) close() error {
	if s.listener == nil {
		return nil
	}
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
