package unixsock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// shortDir is t.TempDir, but short enough for the path of a socket.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// pair returns both ends of a connection.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := Listen(filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); b.Close() })
	return conn.(*net.UnixConn), b
}

// null opens a file n times.
func null(t testing.TB, n int) (fds []int) {
	t.Helper()
	for range n {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	return fds
}

func countFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Bytes and descriptors arrive, also where they are more than a socket's buffer takes and than one read gets.
func TestSendAndRead(t *testing.T) {
	for _, tt := range []struct{ bytes, fds int }{{1, 0}, {1, 1}, {3, 2}, {4 << 20, MaxFDs}} {
		a, b := pair(t)
		want, fds := bytes.Repeat([]byte{7}, tt.bytes), null(t, tt.fds)
		sent := make(chan error, 1)
		go func() { sent <- errors.Join(Send(a, want, fds...), a.CloseWrite()) }()
		r := NewReader(b, tt.fds)
		got, err := io.ReadAll(r)
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%+v: got %d bytes", tt, len(got))
		}
		taken := r.Take()
		if len(taken) != tt.fds {
			t.Errorf("%+v: got %d descriptors", tt, len(taken))
		}
		for _, fd := range taken {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d: flags %d, %v, want close-on-exec", fd, flags, err)
			}
		}
		Close(taken...)
		if more := r.Take(); len(more) > 0 {
			t.Errorf("%+v: taken twice: %v", tt, more)
		}
	}
}

// More descriptors than asked for are an error, with whatever bytes they come, and none is left open.
func TestTooManyDescriptors(t *testing.T) {
	for _, tt := range []struct {
		name string
		room int
		sent []int // with each of the messages
	}{
		{"none expected", 0, []int{1}},
		{"two for one, which the kernel's padding lets through", 1, []int{2}},
		{"three for one", 1, []int{3}},
		{"three for two, in two messages", 2, []int{2, 1}},
		{"all that the kernel takes", 2, []int{MaxFDs}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			fds := null(t, MaxFDs)
			before := countFiles(t)
			for _, n := range tt.sent {
				if err := Send(a, []byte("x"), fds[:n]...); err != nil {
					t.Fatal(err)
				}
			}
			r := NewReader(b, tt.room)
			var err error
			for range tt.sent {
				if err != nil {
					t.Fatal(err)
				}
				var n int
				if n, err = r.Read(make([]byte, 1)); n != 1 {
					t.Errorf("got %d bytes", n)
				}
			}
			if err == nil || !strings.Contains(err.Error(), "no room for them") {
				t.Errorf("got %v", err)
			}
			r.Close()
			if after := countFiles(t); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

// What a process without room for descriptors misses is an error, not a shorter list.
func TestNoRoomForDescriptors(t *testing.T) {
	a, b := pair(t)
	if err := Send(a, []byte("x"), null(t, 4)...); err != nil {
		t.Fatal(err)
	}
	before := countFiles(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free) + 2, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	r := NewReader(b, 4)
	_, err = r.Read(make([]byte, 1))
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); restored != nil {
		t.Fatal(restored)
	}
	if err == nil || !strings.Contains(err.Error(), "no room for them") {
		t.Errorf("got %v", err)
	}
	r.Close()
	if after := countFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// Other ancillary data is refused, and what came beside it does not stay open.
func TestCredentials(t *testing.T) {
	a, b := pair(t)
	raw, err := b.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err := errors.Join(controlErr, err); err != nil {
		t.Fatal(err)
	}
	if err := Send(a, []byte("x"), null(t, 1)...); err != nil {
		t.Fatal(err)
	}
	before := countFiles(t)
	r := NewReader(b, 20) // with room for credentials
	if n, err := r.Read(make([]byte, 1)); n != 1 || err == nil || !strings.Contains(err.Error(), "other ancillary data") {
		t.Errorf("got %d bytes, %v", n, err)
	}
	r.Close()
	if after := countFiles(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
}

// A connection that is closed, or silent for too long, is an error without bytes.
func TestReadFails(t *testing.T) {
	_, b := pair(t)
	r := NewReader(b, 1)
	if err := b.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: got %d, %v", n, err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		n, err := r.Read(make([]byte, 1))
		if n != 0 {
			err = fmt.Errorf("%d bytes, %w", n, err)
		}
		read <- err
	}()
	b.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
}

func TestPeer(t *testing.T) {
	a, b := pair(t)
	for _, conn := range []*net.UnixConn{a, b} {
		peer, err := Peer(conn)
		if err != nil || int(peer.Uid) != os.Getuid() || int(peer.Pid) != os.Getpid() {
			t.Errorf("got %+v, %v", peer, err)
		}
	}
	a.Close()
	if _, err := Peer(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
}

func TestDecode(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a"}`: "", " {}\n": "",
		"": "EOF", "{": "unexpected EOF", "{}{}": "something follows", "{} x": "something follows",
		`{"color":1}`: "unknown field", `{"name":1}`: "cannot unmarshal",
	} {
		var v struct {
			Name string `json:"name"`
		}
		if err := Decode([]byte(text), &v); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	type value struct {
		Name  string            `json:"name"`
		Count int               `json:"count"`
		Map   map[string]*value `json:"map,omitempty"`
	}
	for _, s := range []string{`{"name":"a","count":1}`, `{"map":{"a":{"name":"b"},"c":null}}`, "{}{}", `{"color":1}`, "null", "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, plain, again value
		if Decode(b, &v) != nil {
			return
		}
		if err := json.Unmarshal(b, &plain); err != nil || !cmp.Equal(v, plain) {
			t.Fatalf("%s: got %+v, but json.Unmarshal %+v, %v", b, v, plain, err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(text, &again); err != nil {
			t.Fatal(err)
		}
	})
}

// parseRights only reads numbers; nothing is closed here, for they may be of files of this process.
func FuzzParseRights(f *testing.F) {
	f.Add(unix.UnixRights())
	f.Add(unix.UnixRights(0))
	f.Add(unix.UnixRights(1, 2, 3))
	f.Add(append(unix.UnixRights(1, 2), unix.UnixRights(3)...))
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 1}))
	f.Add(unix.UnixRights(1)[:unix.CmsgLen(0)])
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := parseRights(b)
		if len(fds) > len(b)/4 {
			t.Errorf("% x: %d descriptors", b, len(fds))
		}
		if err == nil && len(fds) > 0 {
			got, err := parseRights(unix.UnixRights(fds...))
			if err != nil || !cmp.Equal(got, fds) {
				t.Errorf("got %v, %v, want %v", got, err, fds)
			}
		}
	})
}
