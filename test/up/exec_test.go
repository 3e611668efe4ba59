package up

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestExec(t *testing.T) {
	p := newPlayground(t)
	p.up(pods("web: sleep 1000"), "--nodes", "1")
	for _, tt := range []struct {
		name   string
		script string
		code   int
		out    string
	}{
		{"success", "echo out", 0, "out\n"},
		{"exit code", "exit 42", 42, ""},
		{"signal", "kill -USR1 $$", 128 + int(syscall.SIGUSR1), ""},
		{"process tree", "ls -d /proc/[0-9]* | wc -l | tr -d ' '", 0, ""},
		{"namespace", "test -e /sys/class || exit 1; grep -c eth0 /proc/net/dev", 0, "1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := p.middleway("exec", "web", "--", "sh", "-c", tt.script)
			if code != tt.code || tt.out != "" && out != tt.out {
				t.Errorf("got %d %q, want %d %q", code, out, tt.code, tt.out)
			}
		})
	}
	for command, want := range map[string]int{"no-such-program": 127, "/proc/version": 126, "/proc": 126, "/no/such": 127} {
		if out, code := p.middleway("exec", "web", "--", command); code != want || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: got %d %q, want %d and one line", command, code, out, want)
		}
	}
	for _, args := range [][]string{{"default/web"}, {"pod/web"}, {"-n", "default", "default/web"}, {"-i", "web"}, {"-it", "web"}, {"-t", "web"}} {
		args = append(append([]string{"exec"}, args...), "--", "echo", "out")
		if out, code := p.middleway(args...); code != 0 || out != "out\n" {
			t.Errorf("%v: got %d %q", args, code, out)
		}
	}
	if out, code := p.middleway("exec", "-n", "other", "default/web", "--", "true"); code != 1 || !strings.Contains(out, "want a pod's name after -n, or NAMESPACE/POD") {
		t.Errorf("got %d %q", code, out)
	}
	for _, args := range [][]string{{"exec"}, {"exec", "web"}, {"exec", "web", "ls"}, {"exec", "--", "ls"}, {"exec", "web", "--"}} {
		if out, code := p.middleway(args...); code != 1 || !strings.Contains(out, "want a pod and a command") {
			t.Errorf("%v: got %d %q", args, code, out)
		}
	}
	if out, code := p.middleway("exec", "gone", "--", "true"); code != 1 || !strings.Contains(out, "there is no pod gone") {
		t.Errorf("got %d %q", code, out)
	}
	t.Run("streams", func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		cmd := p.command("exec", "web", "--", "sh", "-c", "cat; echo err >&2")
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, &errs
		if err := cmd.Run(); err != nil || !bytes.Equal(out.Bytes(), data) || errs.String() != "err\n" {
			t.Errorf("got %v, %d bytes, %q", err, out.Len(), errs.String())
		}
	})
	t.Run("passes signals", func(t *testing.T) {
		cmd := p.command("exec", "web", "--", "sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		if string(rest) != "caught\n" || cmd.ProcessState.ExitCode() != 9 {
			t.Errorf("got %q, %d", rest, cmd.ProcessState.ExitCode())
		}
	})
	t.Run("ends with its client", func(t *testing.T) {
		cmd := p.command("exec", "web", "--", "sh", "-c", "echo ready; exec sleep 4711")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.eventually("the command ends", func() bool {
			out, _ := p.middleway("exec", "web", "--", "sh", "-c", "grep -l '[4]711' /proc/[0-9]*/cmdline 2>/dev/null | wc -l")
			return strings.TrimSpace(out) == "0"
		})
	})
}

// A cluster goes on when the file of its program has gone, by an upgrade for example: exec, plugin and pods take it from where it runs.
func TestProgramRemoved(t *testing.T) {
	p := newPlayground(t)
	b, err := os.ReadFile(program)
	p.must2(err)
	other := filepath.Join(t.TempDir(), "middleway")
	p.must2(os.WriteFile(other, b, 0o700))
	if out, err := exec.Command(other, "up", "-d", "--dir", p.dir, "--nodes", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.must2(os.Remove(other))
	server := fmt.Sprintf("http://%v:8080/", p.pod("pod-1-2").IPs[0])
	p.eventually("an answer of "+server, func() bool {
		out, code := p.middleway("exec", "pod-1-1", "--", "middleway", "tool", "get", server)
		return code == 0 && strings.Contains(out, "saw ")
	})
	p.must("down")
}
