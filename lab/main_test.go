package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	RegisterRole("echo-args", echoArgs)
	RegisterRole("sleep", sleepRole)
	RegisterRole("spin", spinRole)
	RegisterRole("hostage", hostageRole)
	RegisterRole("as-nobody", asNobodyRole)
	Main(m)
}

// echoArgs prints its arguments and interfaces and exits with the first argument's length.
func echoArgs(args []string) int {
	ifs, _ := net.Interfaces()
	fmt.Println("args", args, "interfaces", len(ifs), os.Getenv("GREETING"))
	fmt.Fprintln(os.Stderr, "on stderr")
	if len(args) == 0 {
		return 0
	}
	return len(args[0])
}

// sleepRole waits for SIGTERM; "stubborn" ignores it.
func sleepRole(args []string) int {
	if len(args) > 0 && args[0] == "stubborn" {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		sleepForever()
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	fmt.Println("ready")
	<-terminate
	return 0
}

// spinRole uses the processor for about 200 ms and then waits.
func spinRole([]string) int {
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
	}
	fmt.Println("ready")
	sleepForever()
	return 0
}

// sleepForever is not select {}, which a runtime without cgo calls a deadlock.
func sleepForever() { time.Sleep(time.Hour) }

func newNamespace(t testing.TB, name string) *Namespace {
	t.Helper()
	n, err := NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func newNamespaces(t testing.TB, count int) []*Namespace {
	t.Helper()
	var nodes []*Namespace
	for i := range count {
		nodes = append(nodes, newNamespace(t, fmt.Sprintf("node%d", i+1)))
	}
	return nodes
}

// start starts a process that is killed at the end of the test.
func start(t *testing.T, p *Process) *Process {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

// eventually fails the test if ok does not become true within 5 seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func prints(p *Process, text string) func() bool {
	return func() bool { return strings.Contains(p.Tail(), text) }
}

func mustPing(t *testing.T, from *Namespace, dst netip.Addr, size int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	rtt, err := from.Ping(ctx, dst, size)
	if err != nil {
		t.Fatal(err)
	}
	return rtt
}

func mustNotPing(t *testing.T, from *Namespace, dst netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := from.Ping(ctx, dst, 56); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping %s: got %v, want %v", dst, err, context.DeadlineExceeded)
	}
}

// transfer sends size bytes over TCP from one namespace to an address in another and checks that all arrive.
func transfer(t testing.TB, from, to *Namespace, addr netip.Addr, size int64) {
	t.Helper()
	server := Sockets{Namespace: to, Congestion: "cubic"}
	l, err := server.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64, 1)
	go func() {
		var n int64
		if c, err := l.Accept(); err == nil {
			n, _ = io.Copy(io.Discard, c)
			c.Close()
		}
		received <- n
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Sockets{Namespace: from, Congestion: "cubic"}.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.CopyN(c, zeros{}, size); err != nil {
		t.Error(err)
	}
	c.Close()
	if got := <-received; got != size {
		t.Errorf("received %d bytes of %d", got, size)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
