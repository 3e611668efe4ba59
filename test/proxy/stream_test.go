package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

var transferSize = flag.Int64("size", 64<<20, "how much goes each way in a transfer, in bytes")

// TestTransfer: a download and an upload arrive as they were sent.
func TestTransfer(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "tcp") {
		t.Run(w.name, func(t *testing.T) {
			client, server := w.connect(t)
			t.Logf("download %s", transfer(t, server, client))
			client, server = w.connect(t)
			t.Logf("upload %s", transfer(t, client, server))
		})
	}
}

func (w way) listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := w.server.Listen("tcp", w.at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns both ends of a connection that goes the way. They end with the test, and none waits for longer than a minute.
func (w way) connect(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	l := w.listen(t)
	defer l.Close()
	c, err := dial(w.from, "tcp", w.to, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	deadline := time.Now().Add(time.Minute)
	_ = l.(*net.TCPListener).SetDeadline(deadline)
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, end := range []net.Conn{c, s} {
		_ = end.SetDeadline(deadline)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// transfer sends -size bytes between the ends of a connection, closes both, and says how long it took.
func transfer(t *testing.T, from, to *net.TCPConn) string {
	t.Helper()
	deadline := time.Now().Add(time.Minute + time.Duration(*transferSize>>20)*100*time.Millisecond)
	_, _ = from.SetDeadline(deadline), to.SetDeadline(deadline)
	size, begin := fewer(*transferSize), time.Now()
	var sent [sha256.Size]byte
	var sending error
	var wg sync.WaitGroup
	wg.Go(func() {
		sent, sending = send(from, size)
		_ = from.CloseWrite()
	})
	h := sha256.New()
	n, err := io.Copy(h, to)
	took := time.Since(begin)
	wg.Wait()
	_, _ = to.Close(), from.Close()
	if err != nil || sending != nil || n != size || !bytes.Equal(h.Sum(nil), sent[:]) {
		t.Errorf("%d of %d bytes arrived with hash %x; sent was %x (%v, %v)", n, size, h.Sum(nil), sent, err, sending)
	}
	return fmt.Sprintf("of %d MiB in %v, %.2f Gbit/s", n>>20, took.Round(time.Millisecond), float64(n)*8/took.Seconds()/1e9)
}

// send writes size random bytes and returns their hash.
func send(to io.Writer, size int64) (sum [sha256.Size]byte, err error) {
	buf, random, h := make([]byte, 256<<10), rand.New(rand.NewPCG(1, 2)), sha256.New()
	for i := 0; i < len(buf); i += 8 {
		binary.NativeEndian.PutUint64(buf[i:], random.Uint64())
	}
	for left := size; left > 0; {
		binary.BigEndian.PutUint64(buf, uint64(left)) // each differs from all others
		b := buf[:min(left, int64(len(buf)))]
		if _, err = to.Write(b); err != nil {
			return sum, err
		}
		h.Write(b)
		left -= int64(len(b))
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// TestHalfClose: one end has said all and hears what the other one says then, either way round.
func TestHalfClose(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "tcp") {
		for _, first := range []string{"client", "server"} {
			t.Run(w.name+"/"+first, func(t *testing.T) {
				a, b := w.connect(t)
				if first == "server" {
					a, b = b, a
				}
				mustPass(t, a, b, "question")
				mustEnd(t, a, b)
				time.Sleep(300 * time.Millisecond)
				for i := range 3 {
					mustPass(t, b, a, fmt.Sprint("answer ", i))
				}
				mustEnd(t, b, a)
			})
		}
	}
}

// mustPass sends a text from one end to the other.
func mustPass(t *testing.T, from, to *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("got %q (%v), want %q", got, err, text)
	}
}

// mustEnd ends what one end sends, which the other one has to hear.
func mustEnd(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := to.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Fatalf("got %d bytes and %v, want %v", n, err, io.EOF)
	}
}

// TestReset: a reset of one end is one at the other, when nothing is on the way and in the middle of a transfer.
func TestReset(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "tcp") {
		for _, who := range []string{"client", "server"} {
			for _, busy := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s, busy %v", w.name, who, busy), func(t *testing.T) {
					a, b := w.connect(t)
					if who == "server" {
						a, b = b, a
					}
					mustPass(t, a, b, "question")
					mustPass(t, b, a, "answer")
					if busy {
						keepSending(t, b)
						time.Sleep(50 * time.Millisecond)
					}
					_ = a.SetLinger(0)
					begin := time.Now()
					_ = a.Close()
					if err := ends(b); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("the other end got %v, want %v", err, syscall.ECONNRESET)
					}
					if took := time.Since(begin); took > 5*time.Second {
						t.Errorf("after %v", took)
					}
				})
			}
		}
	}
}

// TestResetAfterEnd: one end has said all and is reset then, while the other one, which could still answer, has nothing to say.
func TestResetAfterEnd(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "tcp") {
		for _, who := range []string{"client", "server"} {
			t.Run(w.name+"/"+who, func(t *testing.T) {
				a, b := w.connect(t)
				if who == "server" {
					a, b = b, a
				}
				mustPass(t, a, b, "question")
				mustEnd(t, a, b)
				time.Sleep(100 * time.Millisecond)
				_ = a.SetLinger(0)
				_ = a.Close()
				deadline := time.Now().Add(5 * time.Second)
				for !brokenSocket(t, b) && time.Now().Before(deadline) {
					time.Sleep(10 * time.Millisecond)
				}
				if !time.Now().Before(deadline) {
					t.Error("the other end was not told within 5 s")
				}
			})
		}
	}
}

// brokenSocket reports whether a socket has an error, which it does not take away from who reads and writes.
func brokenSocket(t *testing.T, c *net.TCPConn) (broken bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, _ = unix.Poll(fds, 0)
		broken = fds[0].Revents&unix.POLLERR != 0
	})
	if err != nil {
		t.Fatal(err)
	}
	return broken
}

// keepSending sends until that fails.
func keepSending(t *testing.T, c *net.TCPConn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { c.Close(); wg.Wait() })
}

// ends reads until an end's connection ends, and returns as what. The writer beside it may have been told of the error in its place.
func ends(c *net.TCPConn) error {
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		if _, err = c.Write([]byte("?")); errors.Is(err, syscall.EPIPE) {
			return fmt.Errorf("the error was told to the writer: %w", syscall.ECONNRESET)
		}
	}
	return err
}

// TestParallel: 1,000 connections at once, each of which has an answer of its own, and none is left afterwards.
func TestParallel(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	const connections = 1000
	for _, w := range c.ways(t, "tcp") {
		t.Run(w.name, func(t *testing.T) {
			l := w.listen(t)
			go func() {
				for {
					s, err := l.Accept()
					if err != nil {
						return
					}
					go func() { defer s.Close(); _, _ = io.Copy(s, s) }()
				}
			}()
			begin := time.Now()
			conns := make([]net.Conn, fewer(connections))
			errs := make([]error, len(conns))
			var wg sync.WaitGroup
			limit := make(chan struct{}, 100) // of those that connect at the same moment: the server's backlog is no matter here
			for i := range conns {
				wg.Go(func() {
					limit <- struct{}{}
					conns[i], errs[i] = dial(w.from, "tcp", w.to, 3*patience)
					<-limit
				})
			}
			wg.Wait()
			opened := time.Since(begin)
			for i, conn := range conns {
				if errs[i] != nil {
					t.Fatalf("connection %d: %v", i, errs[i])
				}
				defer conn.Close()
				wg.Go(func() { errs[i] = echoes(conn, fmt.Sprintf("connection %4d;", i)) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Error(err)
			}
			t.Logf("open after %v, all answered after %v", opened.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
		})
	}
	for _, n := range c.Nodes {
		eventually(t, n.Name()+" has no connection left", func() bool {
			st, err := n.Status()
			return err == nil && st.Outside.TCP.Open == 0
		})
	}
}

// echoes sends a text some times over, and expects the same back.
func echoes(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	want := bytes.Repeat([]byte(text), 500)
	if _, err := c.Write(want); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%s: other bytes came back (%v)", text, err)
	}
	return nil
}

// TestUrgent: urgent data does no harm to the connection that carries it.
func TestUrgent(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	c.serveOutside(t)
	for _, f := range families {
		conn, err := dial(c.pod(1, 1), "tcp", netip.AddrPortFrom(f.outside(1), outsidePort), patience)
		c.must(err)
		defer conn.Close()
		for range 3 {
			raw, err := conn.(*net.TCPConn).SyscallConn()
			c.must(err)
			c.must(raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte("!"), unix.MSG_OOB) }))
			c.must(err)
			_, _ = hear(conn, 100*time.Millisecond) // the byte may be delivered in the stream, and answered
			if got, err := askOn(conn); err != nil || got.name != "external" {
				t.Errorf("%s: after urgent data: %+v %v", f.name, got, err)
			}
		}
	}
}
