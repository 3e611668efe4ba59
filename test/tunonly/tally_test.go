//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What go test -json says becomes the lines that a person needs: packages, failed tests with their output, skipped ones by reason.
func TestTally(t *testing.T) {
	var w bytes.Buffer
	tally := newTally(&w)
	err := tally.read(strings.NewReader(`
{"Action":"start","Package":"github.com/middleway-net/middleway/lab"}
{"Action":"run","Package":"github.com/middleway-net/middleway/lab","Test":"TestA"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Test":"TestA","Output":"    a_test.go:7: got 1, want 2\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Test":"TestB/one","Output":"=== RUN   TestB/one\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Test":"TestB/one","Output":"    b_test.go:9: this kernel cannot: make bridge: operation not supported\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Test":"TestB/one","Output":"--- SKIP: TestB/one (0.00s)\n"}
{"Action":"skip","Package":"github.com/middleway-net/middleway/lab","Test":"TestB/one"}
{"Action":"pass","Package":"github.com/middleway-net/middleway/lab","Test":"TestB"}
{"Action":"fail","Package":"github.com/middleway-net/middleway/lab","Test":"TestA"}
{"Action":"output","Package":"github.com/middleway-net/middleway/lab","Output":"FAIL\tgithub.com/middleway-net/middleway/lab\t0.1s\n"}
{"Action":"fail","Package":"github.com/middleway-net/middleway/lab"}
{"Action":"build-output","ImportPath":"x","Output":"x.go:1: no\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/cni","Output":"PASS\n"}
{"Action":"output","Package":"github.com/middleway-net/middleway/cni","Output":"ok  \tgithub.com/middleway-net/middleway/cni\t0.2s\n"}
`))
	if err != nil {
		t.Fatal(err)
	}
	tally.print()
	const want = `=== RUN   TestA
    a_test.go:7: got 1, want 2
FAIL	github.com/middleway-net/middleway/lab	0.1s
x.go:1: no
ok  	github.com/middleway-net/middleway/cni	0.2s
skipped: this kernel cannot: make bridge: operation not supported
    lab TestB/one
1 passed, 1 failed, 1 skipped
`
	if diff := cmp.Diff(want, w.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := newTally(&w).read(strings.NewReader("no JSON")); err == nil {
		t.Error("what go test never says: no error")
	}
}

func TestTranslate(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/home/x/src/lab", "/run/tunonly/source/lab"},
		{"/home/x/src", "/run/tunonly/source"},
		{"/home/x/srcs/lab", ""},
		{"/home/x", ""},
	} {
		got, err := translate(tt.path, "/home/x/src", guestSource)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.path, got, err, tt.want)
		}
	}
}

// A job that is handed in comes back with its output and exit code, or with the reason why it has none.
func TestQueue(t *testing.T) {
	work := t.TempDir()
	if err := makeQueue(work); err != nil {
		t.Fatal(err)
	}
	go func() {
		for _, r := range []result{{Code: 3}, {Code: 1, Error: "killed after 1s"}} {
			id := waitForJob(work)
			os.WriteFile(work+"/"+outputDir+"/"+id, []byte("hello\n"), 0o600)
			writeJSON(work+"/"+doneDir+"/"+id, r)
		}
	}()
	var w bytes.Buffer
	if code, err := submit(t.Context(), work, job{}, &w); code != 3 || err != nil || w.String() != "hello\n" {
		t.Errorf("got %d, %v, %q", code, err, w.String())
	}
	if _, err := submit(t.Context(), work, job{}, &w); err == nil || err.Error() != "killed after 1s" {
		t.Errorf("got %v", err)
	}
}

// waitForJob takes the only job out of the queue and returns its name.
func waitForJob(work string) string {
	for {
		entries, _ := os.ReadDir(work + "/" + queueDir)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				os.Remove(work + "/" + queueDir + "/" + e.Name())
				return e.Name()
			}
		}
	}
}
