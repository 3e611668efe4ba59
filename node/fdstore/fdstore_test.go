package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Listen(ctx, path, quiet)
	if err != nil {
		t.Fatal(err)
	}
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
	c, fds := Open(t.Context(), path, quiet)
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

func refused(t *testing.T, addr string) bool {
	t.Helper()
	return errors.Is(dial(t, addr), syscall.ECONNREFUSED)
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
	first.Sync(t.Context())
	moved := listen(t, first, "moves")
	first.Drop("goes")
	first.Drop("never was")
	first.Sync(t.Context())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{goes, former} {
		if !refused(t, addr) {
			t.Errorf("what was dropped: %s is not refused", addr)
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

// More than one message carries arrive, and go.
func TestMany(t *testing.T) {
	const many = 3*maxBatch + 1
	path := socketPath(t)
	startStore(t, path, time.Minute)
	c, _ := open(t, path)
	for i := range many {
		listen(t, c, fmt.Sprint(i))
	}
	c.Sync(t.Context())
	c.Close()
	c, left := open(t, path)
	if len(left) != many {
		t.Errorf("%d are left, want %d", len(left), many)
	}
	for i := range many - 1 {
		c.Drop(fmt.Sprint(i))
	}
	c.Sync(t.Context())
	c.Close()
	if _, left = open(t, path); len(left) != 1 {
		t.Errorf("%d are left, want 1", len(left))
	}
}

// What a client drops that a former one left is closed, and nothing else of that.
func TestDropLeft(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	first, _ := open(t, path)
	web, dns := listen(t, first, "web"), listen(t, first, "dns")
	first.Sync(t.Context())
	first.Close()
	second, left := open(t, path)
	for _, l := range left {
		l.Close()
	}
	second.Drop("web")
	second.Sync(t.Context())
	if !refused(t, web) {
		t.Error("what was dropped is not refused")
	}
	if err := dial(t, dns); err != nil {
		t.Error("what was not dropped:", err)
	}
}

// Nobody waits for ever for a daemon that does not come, or comes and does not work. While one works nothing expires.
func TestExpire(t *testing.T) {
	const keepFor = 2 * time.Second
	path := socketPath(t)
	startStore(t, path, keepFor)
	first, _ := open(t, path)
	addr := listen(t, first, "web")
	first.Sync(t.Context())
	time.Sleep(keepFor + keepFor/4)
	if err := dial(t, addr); err != nil {
		t.Error("while a client was there:", err)
	}
	first.Close()
	begin := time.Now()
	for !refused(t, addr) {
		fails, left := Open(t.Context(), path, quiet)
		closeAll(left)
		fails.Close()
		time.Sleep(keepFor / 20)
		if time.Since(begin) > 3*keepFor {
			t.Fatal("daemons that fail have clients wait on and on")
		}
	}
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
	c.Sync(t.Context())
	c.Close()
	stop()
	if !refused(t, addr) {
		t.Error("it is not refused")
	}
}

// A store that comes late, or was started again, gets all that is kept, and what was the former one's alone is forgotten.
func TestStoreRestarts(t *testing.T) {
	path := socketPath(t)
	former, left := open(t, path)
	if len(left) > 0 {
		t.Errorf("without a store: left %v", left)
	}
	addr, dropped := listen(t, former, "web"), listen(t, former, "old")
	former.Drop("old")
	if former.Sync(t.Context()); former.conn != nil {
		t.Error("a store is there, where none is")
	}
	stop := startStore(t, path, time.Minute)
	former.Sync(t.Context())
	former.Close()
	c, left := open(t, path)
	if len(left) != 1 || left["web"] == nil || !refused(t, dropped) {
		t.Errorf("left %v", left)
	}
	more := listen(t, c, "more")
	left["web"].Close()
	stop()
	startStore(t, path, time.Minute)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	eventually(t, "Run finds the next store, and forgets what that never had", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.kept) == 1
	})
	last := listen(t, c, "last")
	c.Drop("more")
	eventually(t, "Run sees changes", func() bool { return refused(t, more) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.Close()
	if err := dial(t, last); err != nil || !refused(t, addr) {
		t.Errorf("last: %v", err)
	}
	if _, left := open(t, path); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// The next store waits for the end of the one that serves, and takes its place.
func TestNextStore(t *testing.T) {
	path := socketPath(t)
	stop := startStore(t, path, time.Minute)
	c, _ := open(t, path)
	addr := listen(t, c, "web")
	c.Sync(t.Context())
	came := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		l, err := Listen(ctx, path, quiet)
		if came <- err; err == nil {
			_ = serve(ctx, l, quiet, time.Minute)
		}
	}()
	select {
	case err := <-came:
		t.Fatalf("there are two: %v", err)
	case <-time.After(3 * takenPause):
	}
	stop()
	if err := <-came; err != nil {
		t.Fatal(err)
	}
	c.Sync(t.Context()) // the former one has gone
	eventually(t, "the next one is found", func() bool { c.Sync(t.Context()); return c.conn != nil })
	c.Close()
	if err := dial(t, addr); err != nil {
		t.Error(err)
	}

	waiting, end := context.WithCancel(t.Context())
	time.AfterFunc(takenPause, end)
	if l, err := Listen(waiting, path, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was ended: %v, %v", l, err)
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
	c.Sync(t.Context())
	c.Close()
	for _, text := range []string{"{}\n", "x\n", strings.Repeat("x", maxMessage+1), `{"kind":"keep","names":["x"]}` + "\n", `{"kind":"drop"}` + "\n"} {
		opened, left, err := connect(t.Context(), path)
		if err != nil || len(left) != 1 {
			t.Fatalf("before %.30q: %v, %v", text, left, err)
		}
		closeAll(left)
		fresh, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range []net.Conn{opened, fresh} {
			_, _ = conn.Write([]byte(text))
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%.30q: answered with %d bytes", text, n)
			}
			conn.Close()
		}
	}
	if err := dial(t, addr); err != nil {
		t.Error(err)
	}
}

// A second client waits for the first one's end; one that does not wait so long is forgotten.
func TestOneClient(t *testing.T) {
	path := socketPath(t)
	startStore(t, path, time.Minute)
	first, _ := open(t, path)
	impatient, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		err = send(impatient, message{Kind: kindOpen})
	}
	if err != nil {
		t.Fatal(err)
	}
	listen(t, first, "web")
	first.Sync(t.Context())
	got := make(chan int, 1)
	go func() {
		conn, left, err := connect(t.Context(), path)
		closeAll(left)
		if err == nil {
			conn.Close()
		}
		got <- len(left)
	}()
	select {
	case n := <-got:
		t.Errorf("the second one got %d beside the first", n)
	case <-time.After(200 * time.Millisecond):
	}
	impatient.Close()
	first.Close()
	if n := <-got; n != 1 {
		t.Errorf("the second one got %d", n)
	}
}

// Another user gets nothing, even where the file's mode and directory let him in; nor does a client trust another user's store.
func TestStranger(t *testing.T) {
	if path := os.Getenv("MIDDLEWAY_FDSTORE"); path != "" {
		askAsStranger(t, path)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	path := socketPath(t)
	startStore(t, path, time.Minute)
	c, _ := open(t, path)
	listen(t, c, "web")
	c.Sync(t.Context())
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
	for _, want := range []string{`answer ""`, "belongs to user 0; this socket is for processes of user 65534 alone"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func askAsStranger(t *testing.T, path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Fprintln(conn, `{"kind":"open"}`)
	b, _ := io.ReadAll(conn)
	_, _, err = connect(t.Context(), path)
	fmt.Printf("answer %q, %v\n", b, err)
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"kind":"keep","names":["a"]}`, `{"kind":"drop","names":["a","b"]}`, `{"kind":"open"}`, `{"kind":"done"}{}`, "null", `{"kind":"x"}`} {
		f.Add([]byte(s), 0)
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, fds int) {
		m, err := decode(b, fds)
		named := m.Kind == kindKeep || m.Kind == kindDrop
		switch {
		case err != nil && (m.Kind != "" || m.Names != nil):
			t.Errorf("%q: %+v beside %v", b, m, err)
		case err == nil && (named != (len(m.Names) > 0) || len(m.Names) > maxBatch || m.Kind == kindKeep && fds != len(m.Names) || m.Kind != kindKeep && fds != 0):
			t.Errorf("%q with %d descriptors: %+v", b, fds, m)
		}
	})
}
