package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// In every form an answer is passed on as it comes: what is in use while a GiB is on its way does not grow with it.
func TestToolGetMemory(t *testing.T) {
	const most = 16 << 20
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	var peak uint64
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for i := range size / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				t.Error(err)
				return
			}
			if i%16 == 15 {
				peak = max(peak, inUse())
			}
		}
	}))
	defer server.Close()
	for name, args := range map[string][]string{
		"text": {server.URL + "/x"}, "whom": {server.URL}, "json": {"-o", "json", server.URL}, "repeat": {"--repeat", "2", server.URL},
	} {
		t.Run(name, func(t *testing.T) {
			peak = 0
			before := inUse()
			cmd := command()
			cmd.SetArgs(append([]string{"tool", "get", "-W", "300"}, args...))
			cmd.SetOut(io.Discard)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if peak == 0 || peak > before+most {
				t.Errorf("%d bytes in use before, and %d with %d bytes on their way", before, peak, size)
			}
		})
	}
}

// An answer that breaks off is an object all the same, and says so; one that never began is none.
func TestToolGetBroken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "beg\"")
			w.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	out, code := runTool(t, "get", "-o", "json", server.URL+"/body")
	var got struct{ URL, Proto, Body, Error string }
	d := json.NewDecoder(strings.NewReader(out))
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != 1 || got.URL != server.URL+"/body" || got.Body != "beg\"" || got.Proto != "HTTP/1.1" || got.Error != "unexpected EOF" {
		t.Errorf("got %d %+v", code, got)
	}
	if out, code := runTool(t, "get", "-o", "json", server.URL+"/"); code != 1 || !strings.HasPrefix(out, "tool get: ") {
		t.Errorf("got %d %s", code, out)
	}
}
