package parent

import (
	"slices"
	"sync"

	"github.com/middleway-net/middleway/unixsock"
)

// fewest is how many sockets of a kind lie ready when the next ones are asked for: half of what one request brings.
const fewest = maxSockets / 2

// Pool keeps sockets of a parent ready, so that who needs one for each connection does not wait for a request each time: one
// request brings 64, and the next is made while half of them are left. Only kinds that were asked for are kept. Its methods may be
// called by several goroutines.
type Pool struct {
	client *Client
	fills  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	shelf  map[kind]*shelf
	closed bool
}

// kind is what socket(2) is asked for.
type kind struct{ domain, typ, proto int }

// shelf has the sockets of one kind.
type shelf struct {
	kind
	ready   []int
	filling *fill // nil: nobody asks the parent
}

// fill is one request. Whoever finds nothing ready waits for it.
type fill struct {
	done chan struct{}
	err  error // valid once done is closed
}

// NewPool returns a pool, which asks for nothing yet. The caller closes it.
func (c *Client) NewPool() *Pool { return &Pool{client: c, shelf: map[kind]*shelf{}} }

// Socket is Client.Socket. It waits only if no socket of the kind lies ready.
func (p *Pool) Socket(domain, typ, proto int) (fd int, err error) {
	k := kind{domain, typ, proto}
	for {
		fd, waiting := p.take(k)
		if waiting == nil {
			return fd, nil
		}
		if <-waiting.done; waiting.err != nil {
			return -1, waiting.err
		}
	}
}

// take takes a socket, or returns the request that has to be waited for.
func (p *Pool) take(k kind) (fd int, waiting *fill) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shelf[k]
	if s == nil {
		s = &shelf{kind: k}
		p.shelf[k] = s
	}
	if len(s.ready) <= fewest && s.filling == nil && !p.closed {
		s.filling = &fill{done: make(chan struct{})}
		p.fills.Go(func() { p.fill(s) })
	}
	switch n := len(s.ready); {
	case n > 0:
		fd, s.ready = s.ready[n-1], s.ready[:n-1]
		return fd, nil
	case p.closed:
		return -1, closedFill
	}
	return -1, s.filling
}

// closedFill is what a closed pool has to give.
var closedFill = func() *fill {
	f := &fill{done: make(chan struct{}), err: errClosed}
	close(f.done)
	return f
}()

// fill asks the parent once.
func (p *Pool) fill(s *shelf) {
	fds, err := p.client.sockets(s.domain, s.typ, s.proto, maxSockets)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		unixsock.Close(fds...)
		fds, err = nil, errClosed
	}
	s.ready = slices.Concat(fds, s.ready) // the older ones go first
	s.filling.err = err
	close(s.filling.done)
	s.filling = nil
}

// Close closes the sockets that lie ready, and waits for requests under way. Socket returns os.ErrClosed, by errors.Is, from then on.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.shelf {
		unixsock.Close(s.ready...)
		s.ready = nil
	}
	p.mu.Unlock()
	p.fills.Wait()
	return nil
}
