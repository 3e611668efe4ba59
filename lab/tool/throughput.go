package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// burst is what a sender of Throughput writes and a receiver reads at once, in bytes; iperf3 takes as much.
const burst = 128 << 10

// firstWithin is how long Throughput waits for the first bytes: a lost segment or two are sent again within it.
const firstWithin = 2 * time.Second

// Rate is what arrived in a time. Rates of several rounds add up.
type Rate struct {
	Bytes   int64
	Elapsed time.Duration
}

// Add returns the rate of both rounds together.
func (r Rate) Add(o Rate) Rate { return Rate{r.Bytes + o.Bytes, r.Elapsed + o.Elapsed} }

// Gbits returns the rate in Gbit/s.
func (r Rate) Gbits() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Bytes) * 8 / r.Elapsed.Seconds() / 1e9
}

// String returns the rate like "12.3 Gbit/s".
func (r Rate) String() string { return fmt.Sprintf("%.1f Gbit/s", r.Gbits()) }

// Connect dials a listener and returns both ends of the connection. Nobody else may dial it meanwhile. If nobody answers it
// closes the listener.
func Connect(ctx context.Context, dial Dial, l net.Listener) (client, server net.Conn, err error) {
	type result struct {
		conn net.Conn
		err  error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		accepted <- result{c, err}
	}()
	client, err = dial(ctx, l.Addr().Network(), l.Addr().String())
	if err != nil {
		l.Close() // ends Accept
		if r := <-accepted; r.conn != nil {
			r.conn.Close()
		}
		return nil, nil, err
	}
	r := <-accepted
	if r.err != nil {
		client.Close()
		return nil, nil, r.err
	}
	return client, r.conn, nil
}

// Throughput sends through a connection as fast as it goes, from one of its ends to the other, and counts what arrives
// during d, after something has arrived and a fifth of d in which the connection gets up to speed. Nothing else may use the connection, before or
// after: it is left in the middle of a write. It returns after its goroutines have ended.
func Throughput(ctx context.Context, from, to net.Conn, d time.Duration) (Rate, error) {
	var received atomic.Int64
	var wg sync.WaitGroup
	var sendErr, receiveErr error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { sendErr = flood(from); cancel() })
	wg.Go(func() { receiveErr = count(to, &received); cancel() })

	for end := time.Now().Add(firstWithin); received.Load() == 0 && ctx.Err() == nil && time.Now().Before(end); {
		wait(ctx, time.Millisecond)
	}
	wait(ctx, d/5)
	begun, before := time.Now(), received.Load()
	wait(ctx, d)
	r := Rate{received.Load() - before, time.Since(begun)}
	interrupted := ctx.Err()

	past := time.Unix(1, 0)
	_, _ = from.SetDeadline(past), to.SetDeadline(past)
	wg.Wait()
	if err := errors.Join(sendErr, receiveErr, interrupted); err != nil {
		return r, err
	}
	if r.Bytes == 0 {
		return r, fmt.Errorf("nothing arrived within %v", d)
	}
	return r, nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// flood writes until the deadline.
func flood(c net.Conn) error {
	buf := make([]byte, burst)
	for i := range buf {
		buf[i] = byte(i) // untouched memory is one page of the kernel's, which never leaves the cache
	}
	for {
		if _, err := c.Write(buf); err != nil {
			return unlessDeadline("send", err)
		}
	}
}

// count reads until the deadline.
func count(c net.Conn, received *atomic.Int64) error {
	buf := make([]byte, burst)
	for {
		n, err := c.Read(buf)
		received.Add(int64(n))
		if errors.Is(err, io.EOF) {
			return errors.New("receive: the sender ended the connection")
		}
		if err != nil {
			return unlessDeadline("receive", err)
		}
	}
}

func unlessDeadline(step string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("%s: %w", step, err)
}
