package playground

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/middleway-net/middleway/unixsock"
)

// slowStart is a command whose start lasts until it is let go.
type slowStart struct {
	begun, let, killed chan struct{}
}

func newSlowStart() *slowStart {
	return &slowStart{make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

func (p *slowStart) Start() error {
	close(p.begun)
	<-p.let
	return nil
}

func (p *slowStart) Signal(s os.Signal) error {
	if s == os.Kill {
		close(p.killed)
	}
	return nil
}

func (p *slowStart) Wait() error {
	<-p.killed
	return nil
}

// A command that takes its time to start holds up no other, and not the begin of the end; when it has started then, it is ended.
func TestSlowStart(t *testing.T) {
	l, err := unixsock.Listen(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l, execs: map[execution]bool{}}
	slow, quick := newSlowStart(), newSlowStart()
	close(quick.let)
	got := make(chan error, 2)
	s.tasks.Go(func() { got <- s.start(slow) })
	<-slow.begun
	go func() { got <- s.start(quick) }()
	if err := await(t, got, "another command starts"); err != nil {
		t.Error(err)
	}
	stopped := make(chan struct{})
	go func() {
		s.stopServing()
		close(stopped)
	}()
	await(t, quick.killed, "the one that runs is ended")
	close(slow.let)
	if err := await(t, got, "the slow one has started"); !errors.Is(err, errStopped) {
		t.Errorf("got %v", err)
	}
	await(t, slow.killed, "the slow one is ended")
	await(t, stopped, "the end")
	if err := s.start(newSlowStart()); !errors.Is(err, errStopped) {
		t.Errorf("after the end: got %v", err)
	}
}

// await returns what comes from a channel soon, or its zero when it is closed.
func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 s: %s", what)
	}
	return v
}
