package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveHandler returns the URL of a Handler.
func serveHandler(t *testing.T, dir string) string {
	t.Helper()
	l := listen(t)
	s := ServeHTTP(l, NewHandler(dir))
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String()
}

// fetch asks once and returns the answer's body too.
func fetch(t *testing.T, target string, c FetchConfig) (Fetch, string, error) {
	t.Helper()
	var err error
	if c.URL, err = url.Parse(target); err != nil {
		t.Fatal(err)
	}
	f, err := NewFetcher(c)
	if err != nil {
		return Fetch{}, "", err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var body bytes.Buffer
	got, err := f.Fetch(ctx, &body)
	return got, body.String(), err
}

func TestHandler(t *testing.T) {
	server := serveHandler(t, "")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, method, body string
		status             int
		want               string
	}{
		{"/hostname", "", "", 200, name + "\n"},
		{"/echo?msg=hello", "", "", 200, "hello"},
		{"/echo", "", "a body", 200, "a body"},
		{"/echo", "", strings.Repeat("x", maxEcho+1), 413, ""},
		{"/healthz", "", "", 200, "200 OK\n"},
		{"/healthz?status=503", "PUT", "", 200, "from now on 503 Service Unavailable\n"},
		{"/healthz", "", "", 503, "503 Service Unavailable\n"},
		{"/healthz?status=200", "PUT", "", 200, ""},
		{"/healthz", "", "", 200, "200 OK\n"},
		{"/healthz?status=1", "PUT", "", 400, "want a status from 200 to 599, as in /healthz?status=503\n"},
		{"/none", "", "", 404, ""},
	} {
		c := FetchConfig{Method: tt.method}
		if tt.body != "" {
			c.Body = []byte(tt.body)
		}
		got, body, err := fetch(t, server+tt.path, c)
		if err != nil || got.Status != tt.status || tt.want != "" && body != tt.want {
			t.Errorf("%s %s: got %v, %d %.100q, want %d %q", tt.method, tt.path, err, got.Status, body, tt.status, tt.want)
		}
	}
}

func TestWhoAmI(t *testing.T) {
	server := serveHandler(t, "")
	got, body, err := fetch(t, server+"/whoami?x=1", FetchConfig{Header: http.Header{"Host": {"shop.test"}, "X-A": {"b"}}})
	var who WhoAmI
	if err != nil || json.Unmarshal([]byte(body), &who) != nil {
		t.Fatalf("got %v %q", err, body)
	}
	if who.Client != got.Client || who.Server != got.Server || "http://"+who.Server.String() != server || who.Host != "shop.test" ||
		who.Path != "/whoami?x=1" || who.Method != "GET" || who.Headers.Get("X-A") != "b" || who.Hostname == "" {
		t.Errorf("got %+v of %+v", who, got)
	}
	_, body, err = fetch(t, server+"/clientip", FetchConfig{})
	if a, errAddr := netip.ParseAddrPort(strings.TrimSpace(body)); err != nil || errAddr != nil || !a.Addr().IsLoopback() {
		t.Errorf("/clientip: got %v %q", err, body)
	}
}

func TestHandlerFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := serveHandler(t, dir)
	if _, body, err := fetch(t, server+"/a.txt", FetchConfig{}); err != nil || body != "a file" {
		t.Errorf("got %v %q", err, body)
	}
	if _, body, err := fetch(t, server+"/", FetchConfig{}); err != nil || !strings.Contains(body, "a.txt") {
		t.Errorf("/: got %v %q", err, body)
	}
	if _, body, err := fetch(t, server+"/whoami", FetchConfig{}); err != nil || !strings.Contains(body, `"client"`) {
		t.Errorf("/whoami: got %v %q", err, body)
	}
	if got, body, err := fetch(t, server+"/../../etc/passwd", FetchConfig{}); err != nil || got.Status == 200 {
		t.Errorf("outside of the directory: got %v %d %q", err, got.Status, body)
	}
}

func TestFetchTimings(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	defer server.Close()
	got, body, err := fetch(t, server.URL, FetchConfig{Insecure: true})
	ts := got.Timings
	if err != nil || body != "hello" || got.Bytes != 5 || ts.Connected <= 0 || ts.Secured < ts.Connected || ts.FirstByte < ts.Secured || ts.Total < ts.FirstByte {
		t.Errorf("got %v %q %+v", err, body, got)
	}
	if _, _, err := fetch(t, server.URL, FetchConfig{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: got %v", err)
	}
}

func TestFetchRedirects(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/there" {
			fmt.Fprint(w, r.Method)
			return
		}
		http.Redirect(w, r, "/there", http.StatusFound)
	}))
	defer server.Close()
	if got, _, err := fetch(t, server.URL, FetchConfig{}); err != nil || got.Status != http.StatusFound || got.Header.Get("Location") != "/there" || !got.OK() {
		t.Errorf("got %v %+v", err, got)
	}
	if got, body, err := fetch(t, server.URL, FetchConfig{Follow: true}); err != nil || got.Status != 200 || body != "GET" {
		t.Errorf("follow: got %v %+v %q", err, got, body)
	}
}

func TestEcho(t *testing.T) {
	l := listen(t)
	streams := EchoStreams(l)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	datagrams := EchoDatagrams(c)
	for _, target := range []string{"tcp://" + l.Addr().String(), "udp://" + c.LocalAddr().String()} {
		want := strings.Repeat("hello", 1000)
		got, body, err := fetch(t, target, FetchConfig{Body: []byte(want)})
		if err != nil || body != want || got.Bytes != 5000 || got.Proto != target[:3] || !strings.HasSuffix(target, got.Server.String()) || got.Timings.FirstByte <= 0 {
			t.Errorf("%s: got %v, %d bytes, %+v", target, err, len(body), got)
		}
	}
	idle, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := idle.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(idle, make([]byte, 1)); err != nil { // so that it has been accepted
		t.Fatal(err)
	}
	if err := errors.Join(streams.Close(), datagrams.Close()); err != nil {
		t.Error(err)
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its server")
	}
}

func TestFetchFails(t *testing.T) {
	for target, want := range map[string]string{
		"ftp://10.244.2.2": "want http, https, tcp or udp", "tcp://10.244.2.2": "want host and port", "udp://10.244.2.2:7/x": "want host and port",
		"http:///x": "want a host",
	} {
		if _, _, err := fetch(t, target, FetchConfig{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", target, err, want)
		}
	}
	silent := listen(t) // accepts, and says nothing
	for _, scheme := range []string{"http", "tcp"} {
		u := &url.URL{Scheme: scheme, Host: silent.Addr().String()}
		f, err := NewFetcher(FetchConfig{URL: u, Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := f.Fetch(ctx, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want that time was up", scheme, err)
		}
		cancel()
	}
}

func TestRepeat(t *testing.T) {
	var n atomic.Int32
	r := Repeat(t.Context(), 10, 3, func(context.Context) (string, error) {
		switch n.Add(1) {
		case 1:
			return "", errors.New("refused")
		case 2, 3:
			return "b", nil
		}
		return "a", nil
	})
	if r.Asked != 10 || r.Answered != 9 || r.Answers["a"] != 7 || r.Answers["b"] != 2 || r.Errors["refused"] != 1 || r.P50 > r.P99 || r.P99 > r.Max {
		t.Errorf("got %+v", r)
	}
	if text := r.String(); !strings.HasPrefix(text, "10 asked, 9 answered in ") || !strings.HasSuffix(text, "\n     7  a\n     2  b\n     1  error: refused") {
		t.Errorf("got %q", text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r = Repeat(ctx, 1000, 1, func(context.Context) (string, error) { cancel(); return "a", nil })
	if r.Asked != 1 || r.Answered != 1 {
		t.Errorf("interrupted: got %+v", r)
	}
}

func TestQuantile(t *testing.T) {
	var hundred []Millis
	for i := range 100 {
		hundred = append(hundred, Millis(i+1))
	}
	for _, tt := range []struct {
		sorted  []Millis
		percent int
		want    Millis
	}{{hundred, 50, 50}, {hundred, 99, 99}, {hundred[:1], 99, 1}, {hundred[:2], 50, 1}, {hundred[:3], 50, 2}} {
		if got := quantile(tt.sorted, tt.percent); got != tt.want {
			t.Errorf("%d%% of %d: got %d, want %d", tt.percent, len(tt.sorted), got, tt.want)
		}
	}
}
