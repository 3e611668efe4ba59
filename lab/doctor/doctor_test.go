package doctor

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/middleway-net/middleway/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// Inside the lab, which Enter has made, all that it is made of works, and the examination agrees.
func TestExamine(t *testing.T) {
	told := map[string]bool{}
	r := Examine(t.Context(), func(f Finding) { told[f.Name] = true })
	for _, name := range []string{"tun-open", "tun-device", "tun-queues", "tun-pod", "network-namespace", "mount-namespace", "pod-namespace", "user-namespace"} {
		f, ok := r.Finding(name)
		if (name != "user-namespace" || os.Getuid() != 0 || r.rootless()) && (!ok || f.State != Works) {
			t.Errorf("%s: got %+v", name, f)
		}
		if !told[name] {
			t.Errorf("%s was not told as it came", name)
		}
	}
	for _, f := range r.Findings {
		if f.State == Missing && (f.Remedy == "" || f.Without == "" || f.Detail == "") {
			t.Errorf("%s is missing without a remedy, what it means, or why: %+v", f.Name, f)
		}
	}
	for _, line := range r.Compact() {
		if utf8.RuneCountInString(line) > compactWidth || strings.TrimSpace(line) == "" {
			t.Errorf("compact: %q", line)
		}
	}
	if n := len(r.Compact()); n < 2 || n > 8 {
		t.Errorf("compact: %d lines", n)
	}
}
