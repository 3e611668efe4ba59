package parent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/underlay"
)

var quiet = slog.New(slog.DiscardHandler)

// serveAt serves sockets at path until the func returned is called, or the test ends.
func serveAt(t testing.TB, path string) (stop func()) {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, quiet) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func socketPath(t testing.TB) string { return filepath.Join(t.TempDir(), "s") }

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// udpSocket returns a socket of the parent's, bound to the loopback address.
func udpSocket(t *testing.T, c *Client) (fd int, at *unix.SockaddrInet4) {
	t.Helper()
	fd, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, sa.(*unix.SockaddrInet4)
}

// A socket is bound and used by the client, has the flags asked for, and outlives the parent.
func TestSocket(t *testing.T) {
	path := socketPath(t)
	stop := serveAt(t, path)
	c := dial(t, path)
	a, _ := udpSocket(t, c)
	b, at := udpSocket(t, c)
	for what, get := range map[string]func() (int, error){
		"non-blocking": func() (int, error) {
			v, err := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
			return v & unix.O_NONBLOCK, err
		},
		"close-on-exec": func() (int, error) { return unix.FcntlInt(uintptr(a), unix.F_GETFD, 0) },
	} {
		if v, err := get(); v == 0 || err != nil {
			t.Errorf("%s: not set (%v)", what, err)
		}
	}
	stop()
	if err := unix.Sendto(a, []byte("hello"), 0, at); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, _, err := unix.Recvfrom(b, buf, 0); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("after the parent's end: got %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "start `middleway sockets "+path) {
		t.Errorf("without a parent: got %v", err)
	}
	serveAt(t, path)
	if fd, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
		t.Errorf("with the next parent: %v", err)
	} else {
		unix.Close(fd)
	}
}

func TestSocketPlain(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path)
	fd, err := dial(t, path).Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if v, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); v != 0 || err != nil {
		t.Errorf("close-on-exec is set, which was not asked for (%v)", err)
	}
}

// ICMP echo sockets are to be had where the machine gives them to this group, else the remedy is told.
func TestEchoSocket(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path)
	fd, err := dial(t, path).Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	own, ownErr := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if ownErr == nil {
		unix.Close(own)
		unix.Close(fd)
	}
	if (err == nil) != (ownErr == nil) || err != nil && !(errors.Is(err, unix.EACCES) && strings.Contains(err.Error(), "ping_group_range")) {
		t.Errorf("got %v; asked directly, the kernel says %v", err, ownErr)
	}
}

func TestInterfacesAndRoute(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path)
	c := dial(t, path)
	got, err := c.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	want, err := underlay.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	own := netip.MustParseAddr("127.0.0.1")
	if way, err := c.Route(own); err != nil || way.Source != own || way.MTU < 1280 {
		t.Errorf("route to %v: got %+v, %v", own, way, err)
	}
}

// Clients do not wait for each other, and each gets a socket of its own.
func TestManyClients(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path)
	silent, err := net.Dial("unix", path) // asks nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var mu sync.Mutex
	inodes := map[uint64]bool{}
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			c, err := Dial(path)
			if err != nil {
				t.Error(err)
				return
			}
			fd, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			err = unix.Fstat(fd, &st)
			mu.Lock()
			defer mu.Unlock()
			inodes[st.Ino] = err == nil
		})
	}
	clients.Wait()
	if len(inodes) < 2 {
		t.Errorf("%d different sockets", len(inodes))
	}
}

// A watcher learns that its parent has ended.
func TestWatchEnds(t *testing.T) {
	path := socketPath(t)
	stop := serveAt(t, path)
	c := dial(t, path)
	done := make(chan error, 1)
	go func() { done <- c.Watch(t.Context(), func() {}) }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func() {}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("a watch that was ended: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, stop)
	if err := <-done; !errors.Is(err, ErrGone) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
}

// Another user gets nothing, even where the file's mode and directory let him in; nor does a client trust another user's parent.
func TestStranger(t *testing.T) {
	if path := os.Getenv("MIDDLEWAY_PARENT_SOCKET"); path != "" {
		askAsStranger(path)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	serveAt(t, path)
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStranger$")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "MIDDLEWAY_PARENT_SOCKET="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`answer ""`, "belongs to user 0; this socket is for processes of user 65534 alone"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func askAsStranger(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Fprintln(conn, udpRequest)
	b, _ := io.ReadAll(conn)
	_, err = Dial(path)
	fmt.Printf("answer %q, %v\n", b, err)
}

func TestListen(t *testing.T) {
	path := socketPath(t)
	stop := serveAt(t, path)
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process does so") {
		t.Errorf("a second parent: got %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v", st.Mode(), err)
	}
	stop()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as kill -9 leaves it
	l.Close()
	if _, err := Dial(path); !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "nobody serves "+path) {
		t.Errorf("left by a former parent: got %v", err)
	}
	serveAt(t, path)()

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		path:                              "a file is there",
		filepath.Join(path, "s"):          "choose a path in a directory",
		"/" + strings.Repeat("long/", 30): "longer than 107 bytes",
	} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// What is no good request is told so, whatever it is, and the parent goes on.
func TestBadRequests(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path)
	for _, text := range []string{"{", "x\n", `{"kind":"shell"}` + "\n", strings.Repeat("x", maxRequest), ""} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, text)
		conn.(*net.UnixConn).CloseWrite()
		b, err := io.ReadAll(conn)
		conn.Close()
		if err == nil && len(b) > 0 {
			_, err = decodeResponse(b, 0, 0)
		}
		if whole := strings.HasSuffix(text, "\n") || len(text) >= maxRequest; whole && err == nil {
			t.Errorf("%.20q: got no error but %q", text, b)
		}
	}
	dial(t, path)
}

const udpRequest = `{"kind":"socket","domain":2,"type":2,"protocol":17}`

func TestDecodeRequest(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // part of the error, "" for none
	}{
		{udpRequest, ""},
		{`{"kind":"socket","domain":10,"type":526337}`, ""}, // SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC
		{`{"kind":"socket","domain":10,"type":2,"protocol":58}`, ""},
		{`{"kind":"socket","domain":2,"type":1,"count":64}`, ""},
		{`{"kind":"interfaces"}`, ""},
		{`{"kind":"watch"}`, ""},
		{"", "EOF"},
		{"{}", "unknown kind"},
		{`{"kind":"shell"}`, "unknown kind"},
		{`{"kind":"watch","domain":2}`, "has no socket"},
		{`{"kind":"watch","path":"/"}`, "unknown field"},
		{`{"kind":"watch","count":2}`, "has no socket"},
		{udpRequest + udpRequest, "more than one"},
		{`{"kind":"socket","domain":2,"type":1,"count":65}`, "between 1 and 64"},
		{`{"kind":"socket","domain":2,"type":1,"count":-1}`, "between 1 and 64"},
		{`{"kind":"socket"}`, "address family 0"},
		{`{"kind":"socket","domain":16,"type":3}`, "address family 16"},             // netlink
		{`{"kind":"socket","domain":17,"type":3}`, "address family 17"},             // packet
		{`{"kind":"socket","domain":1,"type":1}`, "address family 1"},               // unix
		{`{"kind":"socket","domain":2,"type":3,"protocol":1}`, "none of TCP"},       // raw
		{`{"kind":"socket","domain":2,"type":2,"protocol":58}`, "none of TCP"},      // ICMPv6 over IPv4
		{`{"kind":"socket","domain":2,"type":1,"protocol":132}`, "none of TCP"},     // SCTP
		{`{"kind":"socket","domain":2,"type":65538,"protocol":17}`, "none of TCP"},  // an unknown flag
		{`{"kind":"socket","domain":2,"type":-1,"protocol":17}`, "none of TCP"},     //
		{`{"kind":"socket","domain":2,"type":2,"protocol":17.5}`, "cannot unmarsh"}, //
	} {
		_, err := decodeRequest([]byte(tt.text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(udpRequest))
	f.Add([]byte(`{"kind":"interfaces"}`))
	f.Add([]byte(`{"kind":"socket","domain":16,"type":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if r.Kind == kindSocket && (r.Domain != unix.AF_INET && r.Domain != unix.AF_INET6 || r.Type&^socketFlags > unix.SOCK_DGRAM) {
			t.Errorf("%s: let through as %+v", b, r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeRequest(again); err != nil || got != r {
			t.Errorf("%s: reads as %+v, and written again as %+v, %v", b, r, got, err)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add([]byte("{}"), 1, 1)
	f.Add([]byte("{}"), 64, 17)
	f.Add([]byte(`{"error":"no","errno":13}`), 1, 0)
	f.Add([]byte(`{"interfaces":[{"name":"eth0","index":2,"mtu":1500,"up":true,"addrs":[{"prefix":"192.168.254.11/24"}]}]}`), 0, 0)
	f.Fuzz(func(t *testing.T, b []byte, want, has int) {
		want, has = max(want, 0), max(has, 0)
		if r, err := decodeResponse(b, want, has); err == nil && (r.Error != "" || has > want || want > 0 && has == 0) {
			t.Errorf("%s: got %+v", b, r)
		}
	})
}

// TestClientClose: a parent that hangs holds nobody up who has closed the client.
func TestClientClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sockets")
	l, err := Listen(path) // nobody serves it
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := c.Interfaces()
		asked <- err
	}()
	for begun := 0; begun == 0; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		begun = len(c.asking)
		c.mu.Unlock()
	}
	c.Close()
	select {
	case err := <-asked:
		if err == nil {
			t.Error("a request that nobody answered succeeded")
		}
	case <-time.After(10 * time.Second):
		t.Error("a request still waits")
	}
	if _, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, os.ErrClosed)
	}
}
