package node

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start gives a supervisor that collects this test's children, as a node's first process does.
func start(t *testing.T) *supervisor {
	s := newSupervisor(Spec{Logs: t.TempDir(), Path: os.Getenv("PATH")})
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-children:
				s.reap()
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		for _, p := range s.state().Processes {
			if err := s.stop(p.Name); err != nil {
				t.Error(err)
			}
		}
		signal.Stop(children)
		close(done)
	})
	return s
}

// process is what the supervisor says of one component.
func process(t *testing.T, s *supervisor, name string) Process {
	t.Helper()
	all := s.state().Processes
	i := slices.IndexFunc(all, func(p Process) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no %s in %+v", name, all)
	}
	return all[i]
}

func TestSupervisor(t *testing.T) {
	s := start(t)
	if err := s.add(Component{Name: "sleeper", Args: []string{"/bin/sh", "-c", "echo begins; exec sleep 1000"}}); err != nil {
		t.Fatal(err)
	}
	first := process(t, s, "sleeper")
	if first.PID == 0 || first.Restarts != 0 {
		t.Fatalf("after the start: %+v", first)
	}

	begun := func(lives int) bool { return strings.Count(read(t, s, "sleeper"), "begins\n") == lives }
	if !waitFor(10*time.Second, func() bool { return begun(1) }) {
		t.Fatal("it does not begin")
	}
	if err := s.kill("sleeper", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !waitFor(10*time.Second, func() bool {
		p := process(t, s, "sleeper")
		return p.Restarts == 1 && p.PID != 0 && p.PID != first.PID && begun(2)
	}) {
		t.Fatalf("it was not started again: %+v", process(t, s, "sleeper"))
	}

	if err := s.stop("sleeper"); err != nil {
		t.Fatal(err)
	}
	if p := process(t, s, "sleeper"); p.PID != 0 || !p.Stopped {
		t.Errorf("after stop: %+v", p)
	}
	if err := s.kill("sleeper", unix.SIGTERM); err == nil {
		t.Error("what does not run was killed")
	}
	if err := s.resume("sleeper"); err != nil {
		t.Fatal(err)
	}
	if p := process(t, s, "sleeper"); p.PID == 0 || p.Stopped {
		t.Errorf("after resume: %+v", p)
	}
	if !waitFor(10*time.Second, func() bool { return begun(3) }) {
		t.Errorf("its log of three lives is %q", read(t, s, "sleeper"))
	}
	if err := s.stop("another"); err == nil {
		t.Error("an unknown component was stopped")
	}
}

func TestSupervisorRunsToTheEnd(t *testing.T) {
	s := start(t)
	log := filepath.Join(s.spec.Logs, "run.log")
	if err := s.run([]string{"/bin/sh", "-c", "echo fine"}, log); err != nil {
		t.Error(err)
	}
	err := s.run([]string{"/bin/sh", "-c", "echo it is bad; exit 3"}, log)
	if err == nil || !strings.Contains(err.Error(), "status 3") || !strings.Contains(err.Error(), "it is bad") || !strings.Contains(err.Error(), log) {
		t.Errorf("got %v", err)
	}
	if err := s.run([]string{"/no/such/program"}, log); err == nil {
		t.Error("what is not there was run")
	}
}

func read(t *testing.T, s *supervisor, name string) string {
	t.Helper()
	text, err := os.ReadFile(s.spec.Log(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("a\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := Tail(file, 2), "\tb\n\tc"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
