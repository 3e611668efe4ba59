package components

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var file, terminal bytes.Buffer
		for _, p := range []*progress{{w: &file, total: 19}, {w: &terminal, total: 19, width: 50}} {
			s := p.step(3, "kubelet v1")
			c := &compilation{log: io.Discard, step: s}
			io.WriteString(c, "k8s.io/api/core/v1\nk8s.io/ku")
			time.Sleep(1100 * time.Millisecond)
			io.WriteString(c, "belet\ngo: a thing happens\n")
			if c.packages != 2 || c.complaint != "go: a thing happens" {
				t.Errorf("%d packages, complaint %q", c.packages, c.complaint)
			}
			s.end("1 s, 92 MB")
		}
		if got, want := file.String(), " 3 of 19  kubelet v1: 1 s, 92 MB\n"; got != want {
			t.Errorf("in a file %q, want %q", got, want)
		}
		lines := strings.Split(terminal.String(), "\r\x1b[K")
		if got, want := lines[len(lines)-2], " 3 of 19  kubelet v1: 1 s, 1 packages, k8s.io/api"; got != want {
			t.Errorf("on a terminal %q, want %q", got, want)
		}
		if got, want := lines[len(lines)-1], " 3 of 19  kubelet v1: 1 s, 92 MB\n"; got != want {
			t.Errorf("on a terminal at the end %q, want %q", got, want)
		}
	})
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 kB", 1: "1 kB", 2_019_490: "2 MB", 119_197_858: "119 MB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}
