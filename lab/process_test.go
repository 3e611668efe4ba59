package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func notifyAll() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return signals
}

func TestProcessInNamespace(t *testing.T) {
	ns := newNamespace(t, "node")
	var copied bytes.Buffer
	p := Command(ns, "echo-args", "abc", "d e")
	p.Env = []string{"GREETING=hello"}
	p.Output = &copied
	if err := p.Wait(); !errors.Is(err, ErrNotStarted) {
		t.Errorf("wait before start: got %v, want %v", err, ErrNotStarted)
	}
	start(t, p)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("exit: got %v, want code 3", err)
	}
	if want := "args [abc d e] interfaces 1 hello\n"; !strings.Contains(p.Tail(), want) || !strings.Contains(p.Tail(), "on stderr\n") {
		t.Errorf("output: got %q, want %q and stderr", p.Tail(), want)
	}
	if copied.String() != p.Tail() {
		t.Errorf("copy of the output: got %q, want %q", copied.String(), p.Tail())
	}
}

// Every thread of a child is in the namespace, and the child holds no descriptor but those it was given.
func TestProcessAsAWhole(t *testing.T) {
	ns := newNamespace(t, "node")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := Command(ns, "sleep")
	p.Files = []*os.File{w}
	start(t, p)
	eventually(t, "child ready", prints(p, "ready"))

	want, err := os.Readlink(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", p.PID()))
	if len(links) < 2 {
		t.Errorf("got %d threads, want several", len(links))
	}
	for _, link := range links {
		if got, err := os.Readlink(link); err == nil && got != want {
			t.Errorf("%s is %s, want %s", link, got, want)
		}
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); strings.HasPrefix(target, "net:") {
			t.Errorf("the child holds the namespace by %s", fd)
		}
	}
	if target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", p.PID())); !strings.HasPrefix(target, "pipe:") {
		t.Errorf("descriptor 3: got %q, want the pipe", target)
	}
}

func TestExec(t *testing.T) {
	ns := newNamespace(t, "node")
	p := start(t, Exec(ns, "sh", "-c", "cat /proc/net/dev; echo $0 $MIDDLEWAY_LAB_NETNS$MIDDLEWAY_LAB_EXEC."))
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if out := p.Tail(); !strings.Contains(out, "lo:") || strings.Contains(out, "eth0:") || !strings.Contains(out, "sh .\n") {
		t.Errorf("output: %s", out)
	}
	if err := Exec(ns, "no-such-program").Start(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program: got %v, want %v", err, exec.ErrNotFound)
	}
	p = start(t, Command(ns, "no-such-role"))
	if err := p.Wait(); err == nil || !strings.Contains(p.Tail(), `role "no-such-role" is not registered`) {
		t.Errorf("missing role: got %v, %q", err, p.Tail())
	}
}

func TestStop(t *testing.T) {
	p := start(t, Command(nil, "sleep"))
	eventually(t, "child ready", prints(p, "ready"))
	if err := p.Stop(5 * time.Second); err != nil {
		t.Errorf("obedient process: %v", err)
	}
	p = start(t, Command(nil, "sleep", "stubborn"))
	eventually(t, "child ready", prints(p, "ready"))
	if err := p.Stop(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stubborn process: got %v", err)
	}
	if !gone(p.PID()) {
		t.Error("stubborn process lives")
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill an ended process: %v", err)
	}
}

func TestCPUTime(t *testing.T) {
	p := start(t, Command(nil, "spin"))
	eventually(t, "child ready", prints(p, "ready"))
	running, err := p.CPUTime()
	if err != nil || running < 50*time.Millisecond || running > 2*time.Second {
		t.Errorf("running: got %s, %v", running, err)
	}
	p.Kill()
	if ended, err := p.CPUTime(); err != nil || ended < running || ended > running+time.Second {
		t.Errorf("ended: got %s, %v; was %s", ended, err, running)
	}
}

func TestTail(t *testing.T) {
	var w tail
	for i := range 100_000 {
		fmt.Fprintf(&w, "line %d\n", i)
	}
	got := w.String()
	if len(got) != tailSize || !strings.HasSuffix(got, "line 99999\n") || cap(w.buf) > 8*tailSize {
		t.Errorf("got %d bytes of capacity %d, ending in %q", len(got), cap(w.buf), got[len(got)-20:])
	}
}

// A lab that is killed leaves no process and, when the last process is gone, no namespace.
func TestLabKilled(t *testing.T) {
	p := start(t, Command(nil, "hostage"))
	eventually(t, "grandchild ready", prints(p, "grandchild "))
	grandchild := number(t, p.Tail(), "grandchild ")
	namespace := fmt.Sprintf("net:[%d]", number(t, p.Tail(), "namespace "))
	if gone(grandchild) || !held(namespace) {
		t.Fatal("grandchild or its namespace is gone too early")
	}
	p.Kill()
	eventually(t, "grandchild gone", func() bool { return gone(grandchild) })
	eventually(t, "namespace gone", func() bool { return !held(namespace) })
}

// hostageRole is a lab with a namespace, a device in it, and a child.
func hostageRole([]string) int {
	ns, err := NewNamespace("node")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	link, err := NewLink(LinkConfig{}, ns)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer link.Close()
	child := Command(ns, "sleep", "stubborn")
	if err := child.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	for !strings.Contains(child.Tail(), "ready") {
		time.Sleep(time.Millisecond)
	}
	target, _ := os.Readlink(ns.Path())
	fmt.Println("namespace", strings.Trim(target, "net:[]"), "grandchild", child.PID(), "")
	sleepForever()
	return 0
}

// held reports whether any process of the machine is in a network namespace or has it open.
func held(namespace string) bool {
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		links, _ := filepath.Glob(pattern)
		for _, link := range links {
			if target, _ := os.Readlink(link); target == namespace {
				return true
			}
		}
	}
	return false
}

func TestStartNeedsRunRole(t *testing.T) {
	ranRole.Store(false)
	defer ranRole.Store(true)
	if err := Command(nil, "sleep").Start(); !errors.Is(err, errNoRunRole) {
		t.Errorf("got %v, want %v", err, errNoRunRole)
	}
}
