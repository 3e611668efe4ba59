package standin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/manifest"
)

// running is a stand-in whose sockets are on the loopback, wherever it wants to listen.
type running struct {
	*testing.T
	stop context.CancelFunc
	done chan struct{}
	code int
	err  error

	mu    sync.Mutex
	out   bytes.Buffer
	addrs map[string]string // by what was asked for, for example tcp :80
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

func start(t *testing.T, name string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{T: t, stop: cancel, done: make(chan struct{}), addrs: map[string]string{}}
	c := Config{Name: name, Args: args, Hostname: "web-1", Out: r}
	c.Listen = func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err == nil {
			r.note(network+" "+addr, l.Addr())
		}
		return l, err
	}
	c.ListenPacket = func(network, addr string) (net.PacketConn, error) {
		l, err := net.ListenPacket(network, "127.0.0.1:0")
		if err == nil {
			r.note(network+" "+addr, l.LocalAddr())
		}
		return l, err
	}
	go func() {
		defer close(r.done)
		r.code, r.err = Run(ctx, c)
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *running) note(what string, a net.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs[what] = a.String()
}

// at returns where it listens in place of, for example, tcp :80.
func (r *running) at(what string) string {
	r.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		addr := r.addrs[what]
		r.mu.Unlock()
		if addr != "" {
			return addr
		}
	}
	r.Fatalf("it does not listen on %s, but on %v", what, r.addrs)
	return ""
}

// ended stops it, or waits for its end, and checks the exit code and a piece of the error.
func (r *running) ended(stop bool, code int, text string) {
	r.Helper()
	if stop {
		r.stop()
	}
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		r.Fatal("it does not end")
	}
	if r.code != code || (r.err == nil) != (text == "") || r.err != nil && !strings.Contains(r.err.Error(), text) {
		r.Errorf("got exit code %d, %v, want %d, %q", r.code, r.err, code, text)
	}
}

// get returns an answer's code and body.
func get(t *testing.T, address string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestWeb(t *testing.T) {
	for name, heading := range map[string]string{"nginx": "Welcome to nginx!", "httpd": "It works!"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			server := "http://" + r.at("tcp :80")
			if code, body := get(t, server+"/"); code != 200 || !strings.Contains(body, heading) || !strings.Contains(body, "pod web-1") {
				t.Errorf("got %d %q", code, body)
			}
			if code, _ := get(t, server+"/nothing"); code != 404 {
				t.Errorf("got %d, want 404", code)
			}
			r.ended(true, 0, "")
			lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
			if len(lines) != 2 || !strings.HasPrefix(lines[0], "127.0.0.1 - - [") || !strings.Contains(lines[0], `] "GET / HTTP/1.1" 200 `) || !strings.Contains(lines[1], `"GET /nothing HTTP/1.1" 404 `) {
				t.Errorf("got log %q", lines)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	start(t, "busybox").ended(false, 0, "")
	start(t, "pause").ended(true, 0, "")
	start(t, "agnhost").ended(true, 0, "")
	start(t, "agnhost", "pause").ended(true, 0, "")
	start(t, "agnhost", "mounttest").ended(false, 1, "agnhost mounttest has no stand-in here")
	start(t, "agnhost", "netexec", "--colour").ended(false, 2, "agnhost netexec: unknown flag: --colour")
	start(t, "redis").ended(false, 1, `there is no stand-in "redis"; want one of agnhost, busybox,`)
	start(t, "agnhost", "netexec", "--delay-shutdown=0").ended(true, 0, "")
}

func TestNetexec(t *testing.T) {
	r := start(t, "agnhost", "netexec", "--http-port=80", "--udp-port", "53")
	web, udp := r.at("tcp :80"), r.at("udp :53")
	host, port, _ := net.SplitHostPort(web)
	_, udpPort, _ := net.SplitHostPort(udp)
	for path, want := range map[string]string{
		"/hostname": "web-1", "/hostName": "web-1", "/echo?msg=hello%20you": "hello you", "/healthz": "", "/header?key=X-Test": "yes",
		"/dial?protocol=http&host=" + host + "&port=" + port + "&request=echo?msg=x":       `{"responses":["x"]}` + "\n",
		"/dial?protocol=udp&host=" + host + "&port=" + udpPort + "&request=hostname":       `{"responses":["web-1"]}` + "\n",
		"/dial?protocol=udp&host=" + host + "&port=" + udpPort + "&request=echo+a&tries=2": `{"responses":["a","a"]}` + "\n",
	} {
		if code, body := get(t, "http://"+web+path, "X-Test", "yes"); code != 200 || body != want {
			t.Errorf("%s: got %d %q, want %q", path, code, body, want)
		}
	}
	if _, body := get(t, "http://"+web+"/clientip"); !strings.HasPrefix(body, "127.0.0.1:") {
		t.Errorf("clientip: got %q", body)
	}
	if _, body := get(t, "http://"+web+"/"); !strings.HasPrefix(body, "NOW: ") {
		t.Errorf("got %q", body)
	}
	for path, want := range map[string]int{
		"/echo?code=418": 418, "/redirect?location=/x&code=307": 307, "/redirect?location=/x": 302, "/shell?cmd=id": 404,
		"/dial?protocol=sctp": 400, "/dial?protocol=udp&tries=1000": 400,
	} {
		if code, _ := get(t, "http://"+web+path); code != want {
			t.Errorf("%s: got %d, want %d", path, code, want)
		}
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, closed, _ := net.SplitHostPort(gone.Addr().String())
	gone.Close()
	_, body := get(t, "http://"+web+"/dial?protocol=http&host=127.0.0.1&port="+closed)
	var answer map[string][]string
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer["errors"]) != 1 {
		t.Errorf("nobody is there: got %q", body)
	}
	if _, body := get(t, "http://"+web+"/exit?code=3"); body != "" {
		t.Errorf("exit: got %q", body)
	}
	r.ended(false, 3, "asked to exit with code 3")
}

func TestServeHostname(t *testing.T) {
	r := start(t, "agnhost", "serve-hostname")
	if _, body := get(t, "http://"+r.at("tcp :9376")); body != "web-1" {
		t.Errorf("got %q", body)
	}
	r.ended(true, 0, "")
	r = start(t, "agnhost", "serve-hostname", "--tcp", "--port=1")
	conn, err := net.Dial("tcp", r.at("tcp :1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "web-1" {
		t.Errorf("got %q, %v", b, err)
	}
	r.ended(true, 0, "")
	r = start(t, "agnhost", "serve-hostname", "--udp", "--http=false")
	if text, err := askUDP(t.Context(), r.at("udp :9376"), "?"); err != nil || text != "web-1" {
		t.Errorf("got %q, %v", text, err)
	}
	r.ended(true, 0, "")
}

func TestConnect(t *testing.T) {
	r := start(t, "nginx")
	server := r.at("tcp :80")
	start(t, "agnhost", "connect", server, "--timeout=10s").ended(false, 0, "")
	r.ended(true, 0, "")
	start(t, "agnhost", "connect", server).ended(false, 1, "REFUSED")
	start(t, "agnhost", "connect").ended(false, 2, "want one HOST:PORT")
	start(t, "agnhost", "connect", "--protocol=sctp", server).ended(false, 2, "--protocol sctp has no stand-in")
}

// Where the machine has no curl, the stand-in knows the most common flags.
func TestCurl(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := start(t, "agnhost", "netexec", "--http-port=80", "--udp-port=-1")
	server := r.at("tcp :80")
	file := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct {
		args []string
		code int
		text string // of the error
		out  string // the beginning
	}{
		{nil, 2, "no URL specified", ""},
		{[]string{server + "/hostname"}, 0, "", "web-1"},
		{[]string{"-s", "-m", "10", "-H", "X-A: b", "http://" + server + "/header?key=X-A"}, 0, "", "b"},
		{[]string{"-L", server + "/redirect?location=/hostname"}, 0, "", "web-1"},
		{[]string{"-i", server + "/hostname"}, 0, "", "HTTP/1.1 200 OK\r\n"},
		{[]string{"-I", server + "/hostname"}, 0, "", "HTTP/1.1 200 OK\r\n"},
		{[]string{"-so", file, "-w", `%{http_code}\n`, server + "/echo?msg=x"}, 0, "", "200\n"},
		{[]string{"-f", server + "/nothing"}, 22, "error: 404", ""},
		{[]string{"-sf", server + "/nothing"}, 22, "", ""},
		{[]string{"-sSf", server + "/nothing"}, 22, "error: 404", ""},
		{[]string{"127.0.0.1:1"}, 7, "Failed to connect", ""},
		{[]string{"http://nobody.onion/"}, 6, "Could not resolve host: nobody.onion", ""},
		{[]string{"http://[::1"}, 3, "URL rejected", ""},
		{[]string{"--parallel", server}, 2, "knows only the most common flags", ""},
	} {
		c := start(t, "curl", tt.args...)
		c.ended(false, tt.code, tt.text)
		if !strings.HasPrefix(c.out.String(), tt.out) {
			t.Errorf("%v: got %q, want %q", tt.args, c.out.String(), tt.out)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("-o: got %q, %v", b, err)
	}
}

// Each stand-in has its image, and each subcommand that package manifest lets pass is one.
func TestImages(t *testing.T) {
	pod := func(image, args string) (string, error) {
		s, err := manifest.Parse("x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, image: "+image+", args: ["+args+"]}]}\n"))
		if err != nil {
			return "", err
		}
		argv, _ := s.Pods()[0].Command(&s.Pods()[0].Spec.Containers[0], manifest.Facts{})
		return strings.Join(argv, " "), nil
	}
	for _, name := range Names() {
		if got, err := pod(name, ""); err != nil || got != "middleway tool stand-in "+name {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for sub := range agnhost {
		if got, err := pod("agnhost", sub); err != nil || got != "middleway tool stand-in agnhost "+sub {
			t.Errorf("%s: got %q, %v", sub, got, err)
		}
	}
	_, err := pod("agnhost", "mounttest")
	if err == nil {
		t.Fatal("mounttest has a stand-in")
	}
	_, list, _ := strings.Cut(err.Error(), "it has ")
	list, _, _ = strings.Cut(list, ";")
	if want := strings.Split(list, ", "); len(want) != len(agnhost) {
		t.Errorf("package manifest knows %q, and there are %d", want, len(agnhost))
	}
}
