package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func isolated(t *testing.T, script string) *Process {
	t.Helper()
	p := Exec(newNamespace(t, "pod"), "sh", "-c", script)
	p.Isolated = true
	start(t, p)
	return p
}

func TestIsolatedIsProcessOne(t *testing.T) {
	p := isolated(t, `echo pid $$; grep Pid: /proc/self/status | head -1; exit 4`)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("got %v, want exit code 4", err)
	}
	if !strings.Contains(p.Tail(), "pid 1\n") {
		t.Errorf("got %q, want pid 1", p.Tail())
	}
}

// What an isolated process started ends with it.
func TestIsolatedEndsAsAWhole(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := Exec(newNamespace(t, "pod"), "sh", "-c", "setsid sleep 1000 & echo ready; wait")
	p.Isolated, p.Files = true, []*os.File{w}
	start(t, p)
	w.Close()
	eventually(t, "child ready", prints(p, "ready"))
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("somebody still holds the pipe")
	}
}

func TestBeside(t *testing.T) {
	one := isolated(t, "echo ready; sleep 1000")
	eventually(t, "ready", prints(one, "ready"))
	for range 3 {
		p := Exec(one.ns, "sh", "-c", "readlink /proc/self/ns/net; pwd; exit 5")
		p.Beside, p.Dir, p.Bare, p.Env = one, "/etc", true, []string{"PATH=" + os.Getenv("PATH")}
		start(t, p)
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
			t.Errorf("got %v, want exit code 5", err)
		}
		want, err := os.Readlink(one.ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		if p.Tail() != want+"\n/etc\n" {
			t.Errorf("got %q, want %q and /etc", p.Tail(), want)
		}
	}
	long := Exec(one.ns, "sleep", "1000")
	long.Beside = one
	start(t, long)
	if err := one.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-long.Done():
	case <-time.After(10 * time.Second):
		t.Error("it outlives the process beside which it ran")
	}
	late := Exec(one.ns, "true")
	late.Beside = one
	if err := late.Start(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v, want %v", err, os.ErrProcessDone)
	}
}

func TestStreams(t *testing.T) {
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, print, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := Exec(nil, "cat")
	p.Streams = &[3]*os.File{in, print, print}
	start(t, p)
	in.Close()
	print.Close()
	fmt.Fprint(feed, "through")
	feed.Close()
	b := make([]byte, 16)
	if n, err := out.Read(b); string(b[:n]) != "through" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestCatches(t *testing.T) {
	p := isolated(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
	eventually(t, "ready", prints(p, "ready"))
	if !p.Catches(syscall.SIGTERM) || p.Catches(syscall.SIGUSR1) {
		t.Errorf("got TERM %v, USR1 %v, want true, false", p.Catches(syscall.SIGTERM), p.Catches(syscall.SIGUSR1))
	}
	if err := p.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	if p.Catches(syscall.SIGTERM) {
		t.Error("an ended process catches nothing")
	}
}

func TestExecExitCodes(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"interpreter": {"#!/no/such/interpreter\n", 127},
		"nonsense":    {"\x00nonsense", 126},
	} {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(tt.text), 0o755); err != nil {
			t.Fatal(err)
		}
		p := Exec(nil, path)
		start(t, p)
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != tt.want {
			t.Errorf("%s: got %v, %q, want exit code %d", name, err, p.Tail(), tt.want)
		}
	}
}
