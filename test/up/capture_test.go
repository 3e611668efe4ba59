package up

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

// captured runs `middleway capture -w -` while something is done, ends it as Ctrl-C does, and returns the interfaces at which packets
// were seen, by a reader that is not ours.
func (p *playgroundAt) captured(during func(), args ...string) []string {
	p.Helper()
	cmd := p.command(append([]string{"capture", "-w", "-"}, args...)...)
	var file bytes.Buffer
	cmd.Stdout = &file
	pipe, err := cmd.StderrPipe()
	if err != nil {
		p.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	stderr := bufio.NewReader(pipe)
	if line, err := stderr.ReadString('\n'); err != nil || !strings.HasPrefix(line, "capturing at ") {
		p.Fatalf("%q, %v", line, err)
	}
	during()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		p.Fatal(err)
	}
	last, err := io.ReadAll(stderr)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		p.Fatalf("%v: %s", err, last)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		p.Fatal(err)
	}
	seen := map[string]bool{}
	for {
		_, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return slices.Sorted(maps.Keys(seen))
		}
		if err != nil {
			p.Fatal(err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			p.Fatal(err)
		}
		seen[i.Name] = true
	}
}

func TestCapture(t *testing.T) {
	p := newPlayground(t)
	p.must("up", "-d")
	far := p.pod("pod-2-1").IPs[0].String()
	get := func() { p.must("exec", "pod-1-1", "--", "middleway", "tool", "get", far+":8080") }
	for _, tt := range []struct {
		what string
		want []string
	}{
		{"", []string{"node-1/default/pod-1-1", "node-1/tunnel", "node-2/default/pod-2-1", "node-2/tunnel"}},
		{"pod-1-1", []string{"node-1/default/pod-1-1"}},
		{"default/pod-2-1", []string{"node-2/default/pod-2-1"}},
		{"node-2", []string{"node-2/default/pod-2-1", "node-2/tunnel"}},
		{"tunnel", []string{"node-1/tunnel", "node-2/tunnel"}},
	} {
		t.Run("of "+tt.what, func(t *testing.T) {
			got := p.captured(get, append([]string{"--proto", "tcp", "--port", "8080"}, strings.Fields(tt.what)...)...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("seen at (-want +got):\n%s", diff)
			}
		})
	}
	if out, code := p.middleway("capture", "nobody"); code != 1 || !strings.Contains(out, "there is no node and no pod default/nobody; the nodes are node-1, node-2") {
		t.Errorf("got %d %q", code, out)
	}
	if out, code := p.middleway("capture", "--duration", "10ms", "-o", "json"); code != 0 || !strings.Contains(out, "none was lost") {
		t.Errorf("got %d %q", code, out)
	}
}

// capturing begins a capture, and returns what waits for its end, which is to be in order, and returns its words.
func (p *playgroundAt) capturing(args ...string) (ended func() string) {
	p.Helper()
	cmd := p.command(append([]string{"capture", "-w", filepath.Join(p.TempDir(), "x.pcapng")}, args...)...)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		p.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	timeout := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
	stderr := bufio.NewReader(pipe)
	if line, err := stderr.ReadString('\n'); err != nil || !strings.HasPrefix(line, "capturing at ") {
		p.Fatalf("%q, %v", line, err)
	}
	return func() string {
		p.Helper()
		defer timeout.Stop()
		words, err := io.ReadAll(stderr)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			p.Errorf("capture %v: %v", args, err)
		}
		return string(words)
	}
}

// A capture of a pod ends with the pod, also if another one of its name takes its place, and every capture with the cluster: each
// with a sentence and exit code 0.
func TestCaptureEnds(t *testing.T) {
	p := newPlayground(t)
	dir := t.TempDir()
	sleeper := func(name, seconds string) {
		t.Helper()
		text := fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {nodeName: node-1, containers: [{name: c, command: [sleep, %q]}], terminationGracePeriodSeconds: 0}}", name, seconds)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"goes", "changes", "stays"} {
		sleeper(name, "1000")
	}
	p.must("up", "-d", "-f", dir)
	goes, changes, stays, all := p.capturing("goes"), p.capturing("changes"), p.capturing("stays"), p.capturing()
	if err := os.Remove(filepath.Join(dir, "goes.yaml")); err != nil {
		t.Fatal(err)
	}
	sleeper("changes", "1001")
	for _, tt := range []struct {
		words, want string
	}{
		{goes(), "node-1: pod default/goes is gone, and with it this capture"}, {changes(), "node-1: pod default/changes is gone, and with it this capture"},
	} {
		if first, rest, _ := strings.Cut(tt.words, "\n"); first != tt.want || !strings.HasSuffix(rest, " packets, none was lost\n") {
			t.Errorf("got %q, want %q", tt.words, tt.want)
		}
	}
	p.must("down")
	if words := stays(); !strings.HasPrefix(words, "node-1: pod default/stays is gone, and with it this capture\n") {
		t.Errorf("got %q", words)
	}
	if words := all(); !strings.HasPrefix(words, "node-1, node-2: the daemon ended, and with it this capture\n") || strings.Count(words, "\n") != 2 {
		t.Errorf("got %q", words)
	}
}
