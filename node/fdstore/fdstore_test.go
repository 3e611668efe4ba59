package fdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

// startStore serves path until stop is called, or the test ends.
func startStore(t testing.TB, path string, keepFor time.Duration) (stop func()) {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, quiet, keepFor) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func socketPath(t testing.TB) string {
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// open opens a client, which the test closes, and what was left as listeners.
func open(t *testing.T, path string) (*Client, map[string]net.Listener) {
	t.Helper()
	c, fds := Open(path, quiet)
	t.Cleanup(func() { c.Close() })
	left := map[string]net.Listener{}
	for name, fd := range fds {
		f := os.NewFile(uintptr(fd), name)
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		left[name] = l
	}
	return c, left
}

// listen listens, has that kept, and returns the address.
func listen(t *testing.T, c *Client, name string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // as the end of the process does
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = c.Keep(name, int(fd)) }), failed); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func dial(t *testing.T, addr string) error {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// A client that is gone leaves what it has not dropped, and those who connect meanwhile wait for the next one.
func TestKeep(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	first, left := open(t, path)
	if len(left) > 0 {
		t.Errorf("the first one got %v", left)
	}
	stays, goes := listen(t, first, "stays"), listen(t, first, "goes")
	former := listen(t, first, "moves")
	moved := listen(t, first, "moves")
	first.Drop("goes")
	first.Drop("never was")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{goes, former} {
		if err := dial(t, addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("what was dropped: %v", err)
		}
	}
	for _, addr := range []string{stays, moved} {
		if err := dial(t, addr); err != nil {
			t.Errorf("between the two: %v", err)
		}
	}
	_, left = open(t, path)
	if len(left) != 2 || left["stays"] == nil || left["moves"] == nil {
		t.Fatalf("the second one got %v", left)
	}
	for _, l := range left {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
}

// What a client drops that a former one left is closed.
func TestDropLeft(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	first, _ := open(t, path)
	addr := listen(t, first, "web")
	first.Close()
	second, left := open(t, path)
	left["web"].Close()
	second.Drop("web")
	if err := dial(t, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

// Nobody waits for ever for a daemon that does not come.
func TestExpire(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, 50*time.Millisecond)
	first, _ := open(t, path)
	addr := listen(t, first, "web")
	time.Sleep(100 * time.Millisecond)
	first.Close()
	if err := dial(t, addr); err != nil {
		t.Error("while a client was there it expired:", err)
	}
	eventually(t, "it is closed", func() bool { return errors.Is(dial(t, addr), syscall.ECONNREFUSED) })
	if _, left := open(t, path); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The end of the store closes what it has.
func TestStop(t *testing.T) {
	path := socketPath(t)
	stop := startStore(t, path, time.Minute)
	c, _ := open(t, path)
	addr := listen(t, c, "web")
	c.Close()
	stop()
	if err := dial(t, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

// A store that comes late, or was started again, gets all that is kept.
func TestStoreRestarts(t *testing.T) {
	path := socketPath(t)
	c, left := open(t, path)
	if len(left) > 0 {
		t.Errorf("without a store: left %v", left)
	}
	addr := listen(t, c, "web")
	dropped := listen(t, c, "old")
	c.Drop("old")
	if c.look() {
		t.Error("a store is there, where none is")
	}
	for range 2 {
		stop := startStore(t, path, time.Minute)
		eventually(t, "the store is found", c.look)
		stop()
	}
	startStore(t, path, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	eventually(t, "Run finds the third", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.conn != nil
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.Close()
	if err := dial(t, addr); err != nil {
		t.Error(err)
	}
	if err := dial(t, dropped); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("what was dropped: %v", err)
	}
	if _, left := open(t, path); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// Names are bounded, and a client that says something else is sent away without loss.
func TestBadClient(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	c, _ := open(t, path)
	addr := listen(t, c, strings.Repeat("\x01", MaxName)) // six bytes each in JSON
	for _, name := range []string{"", strings.Repeat("x", MaxName+1)} {
		if err := c.Keep(name, 0); err == nil {
			t.Errorf("name of %d bytes is taken", len(name))
		}
	}
	if err := c.Keep("closed", -1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
	c.Close()
	for _, text := range []string{"{}\n", "x\n", strings.Repeat("x", maxMessage+1), `{"kind":"keep","name":"x"}` + "\n", `{"kind":"drop"}` + "\n"} {
		conn, left, err := connect(path)
		if err != nil || len(left) != 1 {
			t.Fatalf("before %.30q: %v, %v", text, left, err)
		}
		closeAll(left)
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%.30q: answered with %d bytes", text, n)
		}
		conn.Close()
	}
	if err := dial(t, addr); err != nil {
		t.Error(err)
	}
}

// A second client waits for the first one's end, and goes on without a store meanwhile.
func TestOneClient(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	first, _ := open(t, path)
	if conn, _, err := connect(path); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second one: %v, %v", conn, err)
	}
	listen(t, first, "web")
	first.Close()
	eventually(t, "the next one is served", func() bool {
		conn, left, err := connect(path)
		closeAll(left)
		if err == nil {
			conn.Close()
		}
		return err == nil && len(left) == 1
	})
}

// Another user gets nothing, even where the file's mode and directory let him in; nor does a client trust another user's store.
func TestStranger(t *testing.T) {
	if path := os.Getenv("MIDDLEWAY_FDSTORE"); path != "" {
		_, left, err := connect(path)
		fmt.Println(len(left), err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	path := socketPath(t)
	startStore(t, path, time.Minute)
	c, _ := open(t, path)
	listen(t, c, "web")
	c.Close()
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o777), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStranger$")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "MIDDLEWAY_FDSTORE="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "belongs to user 0; this socket is for processes of user 65534 alone"; !strings.HasPrefix(string(out), "0 ") || !strings.Contains(string(out), want) {
		t.Errorf("%q is not in:\n%s", want, out)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"kind":"keep","name":"a"}`, `{"kind":"drop","name":"a"}`, `{"kind":"reset"}`, `{"kind":"done"}{}`, "null", `{"kind":"x"}`} {
		f.Add([]byte(s), 0)
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, fds int) {
		m, err := decode(b, fds)
		if err != nil {
			if m != (message{}) {
				t.Errorf("%q: %+v beside %v", b, m, err)
			}
			return
		}
		if (m.Kind == kindKeep) != (fds == 1) || len(m.Name) > MaxName || (m.Name != "") != (m.Kind == kindKeep || m.Kind == kindDrop) {
			t.Errorf("%q with %d descriptors: %+v", b, fds, m)
		}
	})
}
