package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// leave makes a socket on which nobody listens.
func leave(t testing.TB, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as kill -9 leaves it
	l.Close()
}

func TestListen(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	leave(t, path)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode: got %v, %v", st.Mode(), err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrTaken) {
		t.Errorf("a second one: got %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("after the second one: %v", err)
	} else {
		conn.Close()
	}
	if first, second := l.Close(), l.Close(); first != nil || !errors.Is(second, net.ErrClosed) {
		t.Errorf("close: got %v, and then %v", first, second)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closed: got %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: got %v", err)
	}
}

func TestListenFails(t *testing.T) {
	dir := shortDir(t)
	file, datagrams := filepath.Join(dir, "file"), filepath.Join(dir, "datagrams")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagrams})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	full := filepath.Join(dir, "full")
	fillBacklog(t, full)
	for path, want := range map[string]string{
		"": "no path of a file", "@abstract": "no path of a file",
		"/" + strings.Repeat("x", MaxPath): "longer than 107 bytes",
		file:                               "a file is there",
		dir:                                "a file is there",
		datagrams:                          "cannot be asked",
		full:                               "another process does so",
		filepath.Join(file, "s"):           "not a directory; choose a path in a directory",
		filepath.Join(dir, "none", "s"):    "no such file or directory; choose a path in a directory",
	} {
		if l, err := Listen(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", path, err, want)
			if err == nil {
				l.Close()
			}
		}
	}
}

// fillBacklog makes a socket whose process accepts nobody, and as many connections as that takes.
func fillBacklog(t *testing.T, path string) {
	t.Helper()
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	for range 10 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the backlog has no end")
}

// A socket that another process has put in ours' place stays.
func TestCloseLeavesOthers(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the second one is gone: %v", err)
	}
	conn.Close()
}

// Of many that begin at once, with or without a socket that was left, one gets the path.
func TestListenAtOnce(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	for round := range 20 {
		if round%2 == 0 {
			leave(t, path)
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		var got []*Listener
		for range 8 {
			all.Go(func() {
				l, err := Listen(path)
				if err != nil {
					if !errors.Is(err, ErrTaken) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, l)
			})
		}
		all.Wait()
		if len(got) != 1 {
			t.Errorf("round %d: %d have the path", round, len(got))
		}
		for _, l := range got {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
