package parent

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// pooled returns a pool with a parent of its own, and what ends that.
func pooled(t testing.TB) (p *Pool, stop func()) {
	t.Helper()
	path := socketPath(t)
	stop = serveAt(t, path)
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	p = c.NewPool()
	t.Cleanup(func() { p.Close() })
	return p, stop
}

// Whoever asks gets a socket of its own, of the kind asked for, however many ask at once.
func TestPool(t *testing.T) {
	p, _ := pooled(t)
	const each, askers = 50, 8
	var mu sync.Mutex
	inodes := map[uint64]bool{}
	var all sync.WaitGroup
	kinds := []struct{ domain, typ int }{{unix.AF_INET, unix.SOCK_STREAM}, {unix.AF_INET, unix.SOCK_DGRAM}, {unix.AF_INET6, unix.SOCK_STREAM}, {unix.AF_INET6, unix.SOCK_DGRAM}}
	if fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6
		kinds = kinds[:2]
	} else {
		unix.Close(fd)
	}
	for i := range askers {
		domain, typ := kinds[i%len(kinds)].domain, kinds[i%len(kinds)].typ
		all.Go(func() {
			for range each {
				fd, err := p.Socket(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				var st unix.Stat_t
				err = unix.Fstat(fd, &st)
				got, typErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
				gotDomain, domainErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
				if err := errors.Join(err, typErr, domainErr); err != nil || got != typ || gotDomain != domain {
					t.Errorf("got type %d of family %d, want %d of %d (%v)", got, gotDomain, typ, domain, err)
				}
				mu.Lock()
				inodes[st.Ino] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(inodes) != each*askers {
		t.Errorf("%d different sockets, want %d", len(inodes), each*askers)
	}
}

// What lies ready outlives the parent. Then an error says what to do; the next parent is asked again.
func TestPoolParentEnds(t *testing.T) {
	p, stop := pooled(t)
	take := func() error {
		fd, err := p.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	if err := take(); err != nil {
		t.Fatal(err)
	}
	stop()
	for range fewest - 1 {
		if err := take(); err != nil {
			t.Fatalf("with sockets at hand: %v", err)
		}
	}
	var err error
	for range 2 * maxSockets {
		if err = take(); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("without parent: got %v", err)
	}
	serveAt(t, p.client.path)
	if err := take(); err != nil {
		t.Errorf("with the next parent: %v", err)
	}
}

// What the kernel refuses is refused each time, and kept by nobody.
func TestPoolRefused(t *testing.T) {
	p, _ := pooled(t)
	for range 3 {
		if _, err := p.Socket(unix.AF_INET, unix.SOCK_RAW, 1); err == nil {
			t.Error("a raw socket: got no error")
		}
	}
}

// A closed pool leaves no descriptor open.
func TestPoolClose(t *testing.T) {
	count := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	p, stop := pooled(t)
	before := count()
	fd, err := p.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := p.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func BenchmarkSocket(b *testing.B) {
	for name, get := range map[string]func(*Pool) func(int, int, int) (int, error){
		"request": func(p *Pool) func(int, int, int) (int, error) { return p.client.Socket },
		"pool":    func(p *Pool) func(int, int, int) (int, error) { return p.Socket },
		"kernel":  func(*Pool) func(int, int, int) (int, error) { return unix.Socket },
	} {
		b.Run(name, func(b *testing.B) {
			p, _ := pooled(b)
			socket := get(p)
			for b.Loop() {
				fd, err := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				unix.Close(fd)
			}
		})
	}
}
