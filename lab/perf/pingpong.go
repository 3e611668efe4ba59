package perf

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lostAfter is how long the client waits for the response to a datagram.
const lostAfter = 200 * time.Millisecond

// timings is what clients of one kind measure together: how long each request took, and how many had no response.
type timings struct {
	mu        sync.Mutex
	histogram Histogram
	lost      int64
}

func (t *timings) add(d time.Duration) {
	t.mu.Lock()
	t.histogram.Add(d)
	t.mu.Unlock()
}

func (t *timings) lose() {
	t.mu.Lock()
	t.lost++
	t.mu.Unlock()
}

// reset forgets what was measured and returns it.
func (t *timings) reset() (h Histogram, lost int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, lost = t.histogram, t.lost
	t.histogram, t.lost = Histogram{}, 0
	return h, lost
}

// pingStream asks over a connection, again and again.
func pingStream(fd int, t Test, took *timings) error {
	b := newBuffer(t.Size)
	for {
		start := time.Now()
		err := write(fd, b)
		if err == nil {
			err = readFull(fd, b)
		}
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		took.add(time.Since(start))
	}
}

// echoStream answers over a connection.
func echoStream(fd int, t Test) error {
	b := newBuffer(t.Size)
	for {
		if err := readFull(fd, b); err != nil {
			if errors.Is(err, unix.ECONNRESET) {
				return nil // the client has gone
			}
			return fmt.Errorf("response: %w", err)
		}
		if err := write(fd, b); err != nil {
			return fmt.Errorf("response: %w", err)
		}
	}
}

// pingDatagrams asks by datagrams, again and again; the first byte tells a response from a late one.
func pingDatagrams(fd int, t Test, took *timings) error {
	if err := setPatience(fd, lostAfter); err != nil {
		return err
	}
	request, response := newBuffer(t.Size), make([]byte, maxRequestSize+1)
	for {
		request[0]++
		start := time.Now()
		if err := write(fd, request); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		switch err := awaitResponse(fd, request, response); {
		case errors.Is(err, unix.EAGAIN):
			took.lose()
		case err != nil:
			return fmt.Errorf("request: %w", err)
		default:
			took.add(time.Since(start))
		}
	}
}

// awaitResponse receives until it has the response to a request.
func awaitResponse(fd int, request, response []byte) error {
	for {
		n, err := read(fd, response)
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ECONNRESET // our own shutdown
		}
		if n == len(request) && response[0] == request[0] {
			return nil
		}
	}
}

// echoDatagrams sends back what one client sends.
func echoDatagrams(fd int) error {
	b := make([]byte, maxRequestSize+1)
	for {
		n, err := read(fd, b)
		if err == nil && n > 0 {
			err = write(fd, b[:n])
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil // the client has gone
		}
		if err != nil {
			return fmt.Errorf("response: %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}
