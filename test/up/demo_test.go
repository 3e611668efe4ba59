package up

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// From the heading "packet" on the daemon of node-1 is killed whenever the playground has started it. The demo goes on, names what
// failed and why, takes everything down, and its exit code tells.
func TestDemoWithoutDaemon(t *testing.T) {
	demo := exec.Command(program, "demo", "--download", "16MiB", "--duration", "100ms", "--write", "")
	demo.Env = append(os.Environ(), "LC_ALL=C.UTF-8") // else arrows are ASCII's
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	timeout := time.AfterFunc(time.Minute, func() { _ = demo.Process.Kill() })
	defer timeout.Stop()

	var text strings.Builder
	var killing sync.WaitGroup
	over := make(chan struct{})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&text, lines.Text())
		if strings.HasPrefix(lines.Text(), "packet ") {
			killing.Go(func() { killAgainAndAgain(demo.Process.Pid, "node-1.yaml", over) })
		}
	}
	close(over)
	killing.Wait()

	var exit *exec.ExitError
	if err := demo.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	got := strings.Join(strings.Fields(text.String()), " ") // as one line, however it was wrapped
	for _, want := range []string{
		`ok [0-9.]+ m?s same node pod-1-1 → pod-1-2`,
		`FAIL [0-9.]+ m?s other node the d`, // the download, or the daemon
		`; node-1: daemon ended: signal: killed`,
		`ok [0-9.]+ m?s same node pod-2-1 → pod-2-2`, // node-2 is well
		`FAIL [0-9.]+ m?s same node throughput of middleway: default/pod-1-1 got no connection to 10\.244\.1\.3 within 2s`,
		`ok [0-9.]+ m?s take down`,
		`[0-9]+ of [0-9]+ checks failed in .*: (.* )?restart, other node throughput, same node throughput, other node$`,
	} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	if left := (&playgroundAt{T: t}).processes(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// killAgainAndAgain kills each daemon that runs from a configuration file of a cluster, found among the children's children of a
// process.
func killAgainAndAgain(ancestor int, file string, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(5 * time.Millisecond):
		}
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			cmdline, _ := os.ReadFile(path)
			if !strings.HasPrefix(string(cmdline), "lab-") || !strings.HasSuffix(string(cmdline), "/"+file+"\x00") {
				continue
			}
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if parent(parent(pid)) == ancestor {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
	}
}

var parentOf = regexp.MustCompile(`(?m)^PPid:\s+([0-9]+)`)

// parent returns a process's parent, 0 if there is no such process.
func parent(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	m := parentOf.FindSubmatch(status)
	if m == nil {
		return 0
	}
	ppid, _ := strconv.Atoi(string(m[1]))
	return ppid
}
