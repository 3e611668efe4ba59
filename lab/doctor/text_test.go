package doctor

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// The forms of a report, of a machine that has some of everything.
func TestGolden(t *testing.T) {
	user := report(1000, false, "capabilities", "udp-buffers", "veth", "vxlan", "tap", "ipv6-socket")
	user.Confined = []string{"a seccomp filter"}
	nothing := report(0, true, "network-namespace", "tun-open", "tun-ordinary")
	for name, form := range map[string]func(io.Writer) error{
		"user.txt":    func(w io.Writer) error { return user.Print(w, TextConfig{}) },
		"nothing.txt": func(w io.Writer) error { return nothing.Print(w, TextConfig{Width: 60, All: true}) },
		"user.json": func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(user)
		},
		"compact.txt": func(w io.Writer) error {
			_, err := io.WriteString(w, strings.Join(append(user.Compact(), nothing.Compact()...), "\n")+"\n")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := form(&b); err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("-want +got, -update writes it:\n%s", diff)
			}
		})
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// Colour changes nothing but colour.
func TestColor(t *testing.T) {
	r := report(1000, false, "capabilities", "veth", "ipv6-socket")
	var plain, color strings.Builder
	if err := errors.Join(r.Print(&plain, TextConfig{}), r.Print(&color, TextConfig{Color: true})); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(color.String(), "\x1b[31mmissing\x1b[0m") {
		t.Errorf("got\n%s\n%s", plain.String(), color.String())
	}
	if diff := cmp.Diff(plain.String(), escapes.ReplaceAllString(color.String(), "")); diff != "" {
		t.Error(diff)
	}
}

// Lists are broken where they get too long, and nothing is lost.
func TestWidth(t *testing.T) {
	for _, line := range report(0, true).Compact() {
		if utf8.RuneCountInString(line) > compactWidth {
			t.Errorf("in short: %d columns: %s", utf8.RuneCountInString(line), line)
		}
	}
	for _, width := range []int{1, 50, 80, 200} {
		var b strings.Builder
		if err := report(0, true).Print(&b, TextConfig{Width: width}); err != nil {
			t.Fatal(err)
		}
		joined := strings.Join(strings.Fields(b.String()), " ")
		for _, p := range probes {
			if !strings.Contains(joined, p.title) {
				t.Errorf("%d columns: %q is not in\n%s", width, p.title, b.String())
			}
		}
		list, _, _ := strings.Cut(b.String(), "What runs here")
		_, list, _ = strings.Cut(list, "\n")
		for line := range strings.Lines(list) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > max(width, minWidth) {
				t.Errorf("%d columns: %d in %q", width, n, line)
			}
		}
	}
}

// An error of writing is told.
func TestPrintError(t *testing.T) {
	if err := report(0, true).Print(brokenPipe{}, TextConfig{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
