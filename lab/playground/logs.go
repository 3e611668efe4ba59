package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/middleway-net/middleway/lab/logs"
)

// LogsRequest asks for what a pod's containers have printed, in kubectl's words.
type LogsRequest struct {
	Namespace     string    `json:"namespace"`
	Pod           string    `json:"pod"`
	Container     string    `json:"container,omitempty"` // default the first
	AllContainers bool      `json:"allContainers,omitempty"`
	Follow        bool      `json:"follow,omitempty"`   // until the pod's end, over the containers' restarts
	Previous      bool      `json:"previous,omitempty"` // the run before the present one
	Tail          *int      `json:"tail,omitempty"`     // lines from the end; default all
	Since         time.Time `json:"since,omitzero"`
	Timestamps    bool      `json:"timestamps,omitempty"`
	Prefix        bool      `json:"prefix,omitempty"` // the pod and the container before each line
}

// defaultContainerKey is the annotation by which a pod says which container kubectl takes where none is named.
const defaultContainerKey = "metadata.annotations['kubectl.kubernetes.io/default-container']"

// options are those for one of the pod's containers.
func (r *LogsRequest) options(c *container) logs.Options {
	o := logs.Options{Follow: r.Follow, Previous: r.Previous, Tail: -1, Since: r.Since, Timestamps: r.Timestamps}
	if r.Tail != nil {
		o.Tail = *r.Tail
	}
	if r.Prefix {
		o.Prefix = fmt.Sprintf("[pod/%s/%s] ", r.Pod, c.spec.Name)
	}
	return o
}

// choose returns the containers that a client wants to read, and what to tell it about the choice.
func (r *LogsRequest) choose(p *Pod) (chosen []*container, note string, err error) {
	if r.AllContainers {
		return slices.Concat(p.inits, p.containers), "", nil
	}
	name := r.Container
	if name == "" {
		name, _ = p.manifest.FieldValue(defaultContainerKey, p.facts())
	}
	c, err := p.container(name)
	if err != nil {
		return nil, "", err
	}
	if r.Container == "" && name == "" && len(p.containers) > 1 {
		var names []string
		for _, other := range p.containers {
			names = append(names, other.spec.Name)
		}
		note = fmt.Sprintf("container %s of %s; -c chooses another one, --all-containers takes all", c.spec.Name, strings.Join(names, ", "))
	}
	return []*container{c}, note, nil
}

// logs sends what containers have printed until there is no more, or the client goes.
func (s *server) logs(conn *net.UnixConn, req LogsRequest) {
	ctx, cancel := context.WithCancel(s.cluster.ctx)
	defer cancel()
	// The end of the cluster comes after that of its pods: the rest has a moment to arrive.
	stop := context.AfterFunc(s.cluster.ctx, func() { _ = conn.SetDeadline(time.Now().Add(time.Second)) })
	defer stop()
	go func() { // it ends with the connection, at the latest when serve closes it
		_, _ = conn.Read(make([]byte, 1)) // a client says nothing more: it has gone
		cancel()
	}()
	send := func(r reply) error {
		r.Version = protocolVersion
		return writeFrame(conn, r)
	}
	last := reply{End: true}
	if err := s.cluster.readLogs(ctx, req, send); err != nil {
		last.Error = err.Error()
	}
	_ = send(last) // unless the client has gone
}

// readLogs sends replies with what containers have printed.
func (c *Cluster) readLogs(ctx context.Context, req LogsRequest, send func(reply) error) error {
	pod := c.Pod(req.Namespace, req.Pod)
	if pod == nil {
		return c.podNotFound(req.Namespace, req.Pod)
	}
	chosen, note, err := req.choose(pod)
	if err != nil {
		return err
	}
	if err := send(reply{Note: note}); err != nil {
		return err
	}
	m := merger{send: send}
	errs := make([]error, len(chosen))
	var wg sync.WaitGroup
	for i, from := range chosen {
		read := func() {
			l := lines{merger: &m, whole: len(chosen) > 1}
			errs[i] = errors.Join(from.readLog(ctx, req, l.add), l.flush())
		}
		if !req.Follow {
			read() // one after another
			continue
		}
		wg.Go(read)
	}
	wg.Wait()
	return firstOf(errs)
}

// firstOf returns the first error.
func firstOf(errs []error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// readLog reads what the container has printed.
func (c *container) readLog(ctx context.Context, req LogsRequest, emit func([]byte) error) error {
	err := c.out.Read(ctx, req.options(c), emit)
	of := fmt.Sprintf("container %s of pod %s", c.spec.Name, c.pod.manifest.Key())
	switch {
	case errors.Is(err, logs.ErrNotStarted):
		return fmt.Errorf("%s has not started yet; %s says why, and `middleway logs -f` waits for it", of, Hint("status", c.pod.cluster.dir.path))
	case errors.Is(err, logs.ErrNoPrevious):
		return fmt.Errorf("%s has no previous run: it was not started again; leave -p out for the present one", of)
	case err != nil:
		return fmt.Errorf("%s: %w", of, err)
	}
	return nil
}

// merger sends what several containers print, one piece after another.
type merger struct {
	mu   sync.Mutex
	send func(reply) error
}

// lines is what one of them prints. If whole, pieces end with a line, unless it is very long.
type lines struct {
	*merger
	whole bool
	held  []byte
}

// maxHeld bounds the part of a line that waits for its end, in bytes.
const maxHeld = 64 << 10

func (l *lines) add(b []byte) error {
	if !l.whole {
		return l.emit(b)
	}
	l.held = append(l.held, b...)
	n := 1 + bytes.LastIndexByte(l.held, '\n')
	if n == 0 && len(l.held) > maxHeld {
		n = len(l.held)
	}
	err := l.emit(l.held[:n])
	l.held = append(l.held[:0], l.held[n:]...)
	return err
}

// flush sends a last line that has no end.
func (l *lines) flush() error {
	if len(l.held) == 0 {
		return nil
	}
	return l.emit(append(l.held, '\n'))
}

func (l *lines) emit(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) == 0 {
		return nil
	}
	return l.send(reply{Data: b})
}

// Logs writes what containers of a pod of the cluster of a state directory have printed to out, and notes about that to notes.
func Logs(ctx context.Context, dir string, req LogsRequest, out, notes io.Writer) error {
	conn, err := dial(ctx, dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendRequest(conn, request{Verb: verbLogs, Logs: &req}); err != nil {
		return fmt.Errorf("ask the cluster in %s: %w", dir, err)
	}
	for {
		r, err := receiveReply(conn, dir)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if r.Note != "" {
			fmt.Fprintln(notes, r.Note)
		}
		if _, err := out.Write(r.Data); err != nil {
			return fmt.Errorf("write logs: %w", err)
		}
		if r.End {
			return nil
		}
	}
}
