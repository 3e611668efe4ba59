package perf

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// serve starts a server and returns its address.
func serve(t *testing.T) netip.AddrPort {
	t.Helper()
	return start(t, &Server{})
}

func start(t *testing.T, s *Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestKinds(t *testing.T) {
	server := serve(t)
	for _, tt := range []struct {
		name string
		test Test
		want func(r Result) bool
	}{
		{"tcp", Test{}, func(r Result) bool { return r.Bytes > 0 && r.Gbits() > 0 }},
		{"tcp streams", Test{Kind: TCP, Streams: 8, Size: 1000, Congestion: "reno"}, func(r Result) bool { return r.Bytes > 0 }},
		{"tcp download", Test{Kind: Download, Streams: 2}, func(r Result) bool { return r.Bytes > 0 && r.Requests == 0 }},
		{"udp", Test{Kind: UDP, Size: 64}, func(r Result) bool {
			return r.Packets > 0 && r.Bytes == 64*r.Packets && r.Sent > 0 && r.Loss() < 1 && r.PacketRate() > 0 && r.SendRate() > 0
		}},
		{"udp streams", Test{Kind: UDP, Streams: 3}, func(r Result) bool { return r.Packets > 0 && r.Bytes == 1400*r.Packets }},
		{"udp trains", Test{Kind: UDP, Segments: 16}, func(r Result) bool { return r.Packets > 0 && r.Bytes == 1400*r.Packets }},
		{"tcp latency", Test{Kind: TCPLatency}, hasTimes},
		{"udp latency", Test{Kind: UDPLatency, Streams: 2, Size: 24}, hasTimes},
		{"connections", Test{Kind: Connections, Streams: 2}, hasTimes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.test.WarmUp, tt.test.Time = 10*time.Millisecond, 100*time.Millisecond
			var r Result
			// On a machine that is busy with other things nothing may arrive within so short a time.
			for deadline := time.Now().Add(30 * time.Second); !tt.want(r) && time.Now().Before(deadline); {
				begun, ended := 0, 0
				var err error
				if r, err = (Client{Begin: func() { begun++ }, End: func() { ended++ }}).Run(t.Context(), server, tt.test); err != nil && !errors.Is(err, errNothing) {
					t.Fatal(err)
				}
				if begun != 1 || ended != 1 {
					t.Errorf("begun %d times, ended %d times", begun, ended)
				}
			}
			if r.Elapsed <= 0 || r.ClientCPU <= 0 || r.ServerCPU <= 0 || !tt.want(r) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func hasTimes(r Result) bool {
	return r.Requests > 0 && r.RequestRate() > 0 && 0 < r.P50 && r.P50 <= r.P90 && r.P90 <= r.P99 && r.P99 <= r.Max && r.Loss() < 1
}

// Streams of TCP go where the client is told to, and arrive at the port that the server was given, test after test.
func TestStreamPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	server := start(t, &Server{StreamPort: at.Port()})
	for _, kind := range []Kind{TCP, TCP, TCPLatency, Connections, Connections} {
		c := Client{To: []netip.AddrPort{at}}
		if r, err := c.Run(t.Context(), server, Test{Kind: kind, Streams: 2, Time: 50 * time.Millisecond}); err != nil && !errors.Is(err, errNothing) {
			t.Errorf("%s: got %+v, %v", kind, r, err)
		}
	}
	c := Client{To: []netip.AddrPort{netip.AddrPortFrom(at.Addr(), server.Port())}} // where the server's control is
	if _, err := c.Run(t.Context(), server, Test{Time: 50 * time.Millisecond}); err == nil {
		t.Error("streams that go where no streams arrive: got no error")
	}
}

// A door that does not open is told, and the server serves on.
func TestDoors(t *testing.T) {
	server := start(t, &Server{Doors: []func(func() error) error{func(func() error) error { return errors.New("locked") }}})
	if _, err := (Client{}).Run(t.Context(), server, Test{}); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a door that does not open: got %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := (Client{}).Run(t.Context(), server, Test{Kind: UDP, Time: 50 * time.Millisecond})
		if err != nil && strings.Contains(err.Error(), errBusy.Error()) && time.Now().Before(deadline) {
			continue // the server has not done with the first test yet
		}
		if err != nil && !errors.Is(err, errNothing) {
			t.Errorf("datagrams, which use no doors: got %v", err)
		}
		return
	}
}

// Intervals come in order and add up to the whole.
func TestIntervals(t *testing.T) {
	for _, kind := range []Kind{TCP, Connections} {
		server := serve(t)
		var got, r Result
		next := 0
		c := Client{Interval: func(n int, r Result) {
			if n != next {
				t.Errorf("got interval %d, want %d", n, next)
			}
			next++
			got.Elapsed += r.Elapsed
			got.Bytes += r.Bytes
			got.Requests += r.Requests
		}}
		err := errNothing
		for deadline := time.Now().Add(30 * time.Second); errors.Is(err, errNothing) && time.Now().Before(deadline); { // as in TestKinds
			got, next = Result{}, 0
			r, err = c.Run(t.Context(), server, Test{Kind: kind, Time: 105 * time.Millisecond, Interval: 20 * time.Millisecond})
		}
		if err != nil {
			t.Fatal(err)
		}
		if next != 6 || got.Elapsed != r.Elapsed || got.Bytes != r.Bytes || got.Requests != r.Requests {
			t.Errorf("%s: got %d intervals of %+v in all, want 6 that add up to %+v", kind, next, got, r)
		}
	}
}

func TestBusy(t *testing.T) {
	server := serve(t)
	began := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := Client{Begin: func() { close(began) }}.Run(ctx, server, Test{Time: MaxTime})
		first <- err
	}()
	<-began
	if _, err := (Client{}).Run(t.Context(), server, Test{}); err == nil || !strings.Contains(err.Error(), errBusy.Error()) {
		t.Errorf("a second test: got %v, want %v", err, errBusy)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first test: got %v, want it cancelled", err)
	}
	// The server learns of it soon, and is free again.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := Client{}.Run(t.Context(), server, Test{Time: 10 * time.Millisecond})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the first test was cancelled: %v", err)
		}
	}
}

// A server that ends takes its test with it.
func TestServerEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- (&Server{}).Serve(ctx, l) }()
	_, err = Client{Begin: cancel}.Run(t.Context(), netip.MustParseAddrPort(l.Addr().String()), Test{Time: MaxTime})
	if err == nil {
		t.Error("a test whose server ended: got no error")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	if _, err := (Client{}).Run(t.Context(), serve(t), Test{Congestion: "none-such"}); err == nil || !strings.Contains(err.Error(), "tcp_available_congestion_control") {
		t.Errorf("a congestion control that there is not: got %v", err)
	}
	if _, err := (Client{}).Run(t.Context(), serve(t), Test{Streams: MaxStreams + 1}); err == nil {
		t.Error("too many streams: got no error")
	}
	if _, err := (Client{}).Run(t.Context(), netip.MustParseAddrPort("[fe80::1%lo]:1"), Test{}); err == nil {
		t.Error("an address with a zone: got no error")
	}
}

// What is no client hears why, and streams without the token are not taken for the test's.
func TestStrangers(t *testing.T) {
	for line, want := range map[string]string{
		"GET / HTTP/1.1\r\n":  "message",
		`{"start":{}}` + "\n": "want what to open",
		`{"open":{"kind":"tcp","size":0,"streams":65,"segments":0,"congestion":"","warmUpNs":0,"timeNs":0,"intervalNs":0}}` + "\n": "65 streams",
		strings.Repeat("x", maxMessage+1): "longer",
	} {
		conn, err := net.Dial("tcp", serve(t).String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); !strings.Contains(string(got), want) {
			t.Errorf("%.40q: got %q, %v, want %q", line, got, err, want)
		}
		conn.Close()
	}
}
