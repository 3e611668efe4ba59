package demo

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// request is a frame that the demo captured: GET / from 10.244.1.2 on node 1 to 10.244.2.2 on node 2.
func request(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/request.hex")
	if err != nil {
		t.Fatal(err)
	}
	frame, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func TestDraw(t *testing.T) {
	frame := request(t)
	wrongFlags := append([]byte(nil), frame...)
	wrongFlags[14+20+8] = 0xff
	for name, f := range map[string][]byte{"request": frame, "cut": frame[:60], "flags": wrongFlags, "empty": nil} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".golden")
			got := Draw(f)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got; write it anew by -update\n%s", diff)
			}
		})
	}
}

// All bytes of the frame are in one of the layers, and the tunnel's are 50.
func TestDissect(t *testing.T) {
	frame := request(t)
	layers, err := dissect(frame)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]int{}
	all := 0
	for _, l := range layers {
		by[l.By] += l.Bytes
		all += l.Bytes
	}
	if all != len(frame) || by[byLink] != 14 || by[byKernel]+by[byDaemon] != overhead {
		t.Errorf("got %d bytes in layers %v of a frame of %d", all, by, len(frame))
	}
}

// A terminal gets nothing but plain text from a packet.
func TestData(t *testing.T) {
	for _, tt := range []struct{ payload, name, words string }{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP", "GET / HTTP/1.1\nHost: a"},
		{"HTTP/1.1 200 OK\r\n\r\nbody\x1b", "HTTP", "HTTP/1.1 200 OK"},
		{"GET / HTTP/1.1\r\nHost: \x1b[2J\r\n\r\n", "data", "30 bytes"},
		{"GET / HTTP/1.1\r\nHo", "data", "18 bytes"},
		{"\x16\x03\x01", "data", "3 bytes"},
	} {
		if got := data([]byte(tt.payload)); got.Name != tt.name || got.Words != tt.words || got.Bytes != len(tt.payload) {
			t.Errorf("%q: got %+v, want %s %q", tt.payload, got, tt.name, tt.words)
		}
	}
}

func FuzzDraw(f *testing.F) {
	f.Add(request(f))
	f.Fuzz(func(t *testing.T, frame []byte) { Draw(frame) })
}
