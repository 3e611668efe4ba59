package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/unixsock"
)

// Status is what a running daemon tells of itself.
type Status struct {
	Name     string         `json:"name"`
	Version  string         `json:"version,omitempty"` // of the program
	Address  netip.Addr     `json:"address"`
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	MTU      int            `json:"mtu"`     // bytes
	Workers  int            `json:"workers"` // count
	PID      int            `json:"pid"`
	Started  time.Time      `json:"started"`
	// Offloads are by the names of the configuration's offloads.
	Offloads map[string]Offload `json:"offloads"`
	Tunnel   Tunnel             `json:"tunnel"`
	Peers    []PeerStatus       `json:"peers"`
	Underlay UnderlayStatus     `json:"underlay"`
	Host     HostStatus         `json:"host"`
	Stack    stack.Stats        `json:"stack"`
	// Attachments are the pods that the CNI plugin has attached, sorted by container; those of the configuration are not
	// among them.
	Attachments []Attachment `json:"attachments"`
	// Outside are the ways into the cluster and out of it.
	Outside WaysStatus `json:"outside"`
	// DNS is null where this node answers no DNS.
	DNS *DNSStatus `json:"dns"`
	// Cluster is null without one.
	Cluster *ClusterStatus `json:"cluster"`
	// Notes are what whoever runs the node should know, in sentences; each was logged too.
	Notes []string `json:"notes"`
	// Problems are what somebody has to mend; each was logged, and is an Event where there is an API server.
	Problems []Problem `json:"problems"`
}

// statusServer answers on a unix socket in the run directory.
type statusServer struct {
	listener  net.Listener
	server    http.Server
	captures  captures
	questions onlookers // about flows and traces
}

// socketName is the status socket's name in the run directory.
const socketName = "node.sock"

func (n *Node) listenStatus() error {
	path := filepath.Join(n.config.RunDir, socketName)
	if len(path) > unixsock.MaxPath {
		return fmt.Errorf("runDir: the path of the status socket, %s, is longer than %d bytes; choose a shorter runDir", path, unixsock.MaxPath)
	}
	l, err := unixsock.Listen(path)
	if err != nil {
		return fmt.Errorf("listen for status at %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.Status())
	})
	n.status.listener, n.status.captures.ending = l, make(chan struct{})
	n.status.captures.what, n.status.captures.max = "captures", maxCaptures
	n.status.questions.what, n.status.questions.max = "questions", maxQuestions
	mux.HandleFunc("POST /capture", n.serveCapture)
	mux.HandleFunc("POST /flows", n.serveFlows)
	mux.HandleFunc("POST /trace", n.serveTrace)
	mux.HandleFunc("POST /giveway", n.serveGiveWay)
	n.status.server = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelWarn)}
	return nil
}

// Status returns the node's present state.
func (n *Node) Status() Status {
	return Status{
		Name: n.config.Name, Version: n.config.Version, Address: n.config.Address, PodCIDRs: n.config.PodCIDRs, MTU: n.mtu,
		Workers: stack.Workers(n.config.Workers), PID: os.Getpid(), Started: n.started,
		Offloads: n.offloads, Tunnel: n.tunnelStatus(), Peers: n.peerStatus(), Underlay: n.underlayStatus(), Host: n.hostStatus(), Stack: n.stack.Stats(),
		Attachments: n.attachments(), Outside: n.waysStatus(), DNS: n.dnsStatus(), Cluster: n.clusterStatus(), Notes: n.notes, Problems: n.troubles.list(),
	}
}

func (s *statusServer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.captures.finish()
		s.questions.refuse()
		_ = s.server.Close()
	})
	defer stop()
	defer s.questions.wait() // they look at the stack, and so do these
	defer s.captures.wait()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

func (s *statusServer) close() error {
	if s.listener == nil {
		return nil
	}
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
