package up

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipe starts a command whose standard output is read by the test, and which is ended with it.
func (p *playgroundAt) pipe(args ...string) (*exec.Cmd, io.ReadCloser) {
	p.Helper()
	cmd := p.command(args...)
	out, err := cmd.StdoutPipe()
	p.must2(err)
	p.must2(cmd.Start())
	p.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
}

// A pod prints a million lines as fast as it can: who follows sees each of them in order, and its end.
func TestLogsOfAMillionLines(t *testing.T) {
	const lines = 1_000_000
	filling := strings.Repeat("0", 60) // so that they are more than is kept
	p := newPlayground(t)
	start := filepath.Join(t.TempDir(), "start")
	p.up(pods(fmt.Sprintf("{restartPolicy: Never} million: while ! test -e %s; do sleep 0.1; done; seq -f %%.0f-%s %d; printf end", start, filling, lines)), "--nodes", "1")
	cmd, out := p.pipe("logs", "-f", "million")
	p.must2(os.WriteFile(start, nil, 0o600))
	scanner := bufio.NewScanner(out)
	for i := 1; i <= lines; i++ {
		if want := fmt.Sprintf("%d-%s", i, filling); !scanner.Scan() || scanner.Text() != want {
			t.Fatalf("got %q, want %q", scanner.Text(), want)
		}
	}
	if !scanner.Scan() || scanner.Text() != "end" || scanner.Scan() {
		t.Errorf("got %q, want the end", scanner.Text())
	}
	p.must2(cmd.Wait())
	if out := p.must("logs", "--tail", "2", "million"); out != fmt.Sprintf("%d-%s\nend", lines, filling) {
		t.Errorf("got %q", out)
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "output/default/million/main/*"))
	if err != nil || len(files) != 5 {
		t.Errorf("got %v, %v, want five files", files, err)
	}
	before := p.processes()
	p.must("down")
	p.gone(before)
}

func TestLogs(t *testing.T) {
	p := newPlayground(t)
	text := pods("{restartPolicy: Never} done: echo out; echo err >&2; sleep 0.3; printf '\\000\\377part'", "loop: echo a run; sleep 1; exit 4", "gone: echo here; sleep 1000") +
		"---\napiVersion: v1\nkind: Pod\nmetadata: {name: two, namespace: prod}\nspec: {containers: [" +
		"{name: a, command: [sh, -c, echo from a; sleep 1000]}, {name: b, command: [sh, -c, echo from b; sleep 1000]}]}\n"
	p.up(text, "--nodes", "1")
	p.eventually("it is done", func() bool { return p.pod("done").Phase == "Succeeded" })
	if out := p.must("logs", "done"); len(out) != len("out\nerr\n\x00\xffpart") || !strings.HasSuffix(out, "\x00\xffpart") {
		t.Errorf("got %q", out)
	}
	if out := p.must("logs", "-f", "--tail", "1", "default/done"); out != "\x00\xffpart" {
		t.Errorf("the tail of what has ended for good: got %q", out)
	}
	if out := p.must("logs", "--since", "1h", "--timestamps", "done"); !strings.HasPrefix(out, time.Now().UTC().Format("2006-")) || strings.Count(out, "Z ") != 3 {
		t.Errorf("got %q", out)
	}
	p.eventually("both have printed", func() bool {
		return p.must("logs", "-n", "prod", "--all-containers", "--prefix", "two") == "[pod/two/a] from a\n[pod/two/b] from b\n"
	})
	if out := p.must("logs", "prod/two", "-c", "b"); out != "from b\n" {
		t.Errorf("got %q", out)
	}
	if out := p.must("logs", "prod/two"); out != "container a of a, b; -c chooses another one, --all-containers takes all\nfrom a\n" {
		t.Errorf("got %q", out)
	}
	_, loop := p.pipe("logs", "-f", "loop")
	scanner := bufio.NewScanner(loop)
	for range 3 { // over restarts
		if !scanner.Scan() || scanner.Text() != "a run" {
			t.Errorf("got %q", scanner.Text())
		}
	}
	if out := p.must("logs", "-p", "loop"); out != "a run\n" {
		t.Errorf("the run before: got %q", out)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "want one pod"},
		{[]string{"a", "b"}, "want one pod"},
		{[]string{"nobody"}, "there is no pod nobody in namespace default"},
		{[]string{"two"}, "-n prod has one"},
		{[]string{"-n", "x", "prod/two"}, "want a pod's name after -n, or NAMESPACE/POD"},
		{[]string{"--all-containers", "-c", "a", "prod/two"}, "give one of them"},
		{[]string{"-c", "z", "prod/two"}, "it has a, b"},
		{[]string{"-p", "done"}, "has no previous run"},
		{[]string{"--tail", "-2", "done"}, "want a number of lines"},
		{[]string{"--since", "-2s", "done"}, "want a time like"},
	} {
		if out, code := p.middleway(append([]string{"logs"}, tt.args...)...); code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %d %q, want %q", tt.args, code, out, tt.want)
		}
	}
}

// Whoever follows ends by Ctrl-C, with its reader, and with the cluster.
func TestLogsEnd(t *testing.T) {
	p := newPlayground(t)
	p.up(pods("web: echo here; sleep 1000", "chatter: while :; do echo x; sleep 0.01; done"), "--nodes", "1")
	interrupted, out := p.pipe("logs", "-f", "web")
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "here\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	p.must2(interrupted.Process.Signal(syscall.SIGINT))
	if _ = interrupted.Wait(); interrupted.ProcessState.ExitCode() != 130 {
		t.Errorf("after Ctrl-C: got %v", interrupted.ProcessState)
	}
	closed, out := p.pipe("logs", "-f", "chatter")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	out.Close()
	_ = closed.Wait()
	if status := closed.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGPIPE {
		t.Errorf("without a reader: got %v", closed.ProcessState)
	}
	follower, out := p.pipe("logs", "-f", "web")
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "here\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	stopped, out := p.pipe("logs", "-f", "chatter") // somebody who does not read does not keep the cluster
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p.must2(stopped.Process.Signal(syscall.SIGSTOP))
	before := p.processes()
	delete(before, stopped.Process.Pid)
	p.must("down")
	if err := follower.Wait(); err != nil {
		t.Errorf("with the cluster's end: %v", err)
	}
	p.must2(stopped.Process.Kill())
	_ = stopped.Wait()
	p.gone(before)
}

// Memory stays bounded however much a pod prints, and whether somebody reads or stands still.
func TestLogsMemory(t *testing.T) {
	p := newPlayground(t)
	p.up(pods("flood: while :; do seq 100000; done"), "--nodes", "1")
	_, out := p.pipe("logs", "-f", "flood")
	if _, err := out.Read(make([]byte, 1)); err != nil { // and then no more
		t.Fatal(err)
	}
	p.eventually("files are put aside", func() bool {
		files, _ := filepath.Glob(filepath.Join(p.dir, "output/default/flood/main/0.log.1?"))
		return len(files) > 0
	})
	most := 0
	for pid := range p.processes() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, found := bytes.Cut(status, []byte("VmRSS:"))
		if err != nil || !found {
			continue
		}
		var kib int
		if _, err := fmt.Sscan(string(rest), &kib); err != nil {
			t.Fatal(err)
		}
		most = max(most, kib)
	}
	if most == 0 || most > 200<<10 {
		t.Errorf("a process of the cluster has %d KiB, want some, and at most 200 MiB", most)
	}
}
