package up

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

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
	for args, want := range map[string]string{
		"nobody":             "there is no node and no pod default/nobody; the nodes are node-1, node-2",
		"pod-1-1 node-1":     "want one pod or node, or tunnel",
		"-w - -o json":       "give one of them",
		"--run-dir /tmp":     "give one of them",
		"--duration -1s":     "want 0 or more",
		"-w /nowhere/x.pcap": "/nowhere/x.pcap",
	} {
		if out, code := p.middleway(append([]string{"capture"}, strings.Fields(args)...)...); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: got %d %q, want %q", args, code, out, want)
		}
	}
	if out, code := p.middleway("capture", "--duration", "10ms", "-o", "json"); code != 0 || !strings.Contains(out, "none was lost") {
		t.Errorf("got %d %q", code, out)
	}
}
