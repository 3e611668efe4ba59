package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests need namespaces; an ordinary user gets them in a user namespace, for which the test runs itself again.
func TestMain(m *testing.M) {
	const marker = "NETNS_TEST_ENTERED"
	if os.Geteuid() == 0 || os.Getenv(marker) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig looks at the thread
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), marker+"=1"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		},
	})
	if err != nil {
		fmt.Println("skipped: the kernel forbids user namespaces to this user:", err)
		os.Exit(0)
	}
	state, err := child.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(state.ExitCode())
}

func newNamespace(t *testing.T) *Handle {
	t.Helper()
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// inode returns the number of the namespace the calling thread is in.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestDoRunsInside(t *testing.T) {
	outside := inode(t, "/proc/thread-self/ns/net")
	a, b := newNamespace(t), newNamespace(t)
	for _, h := range []*Handle{a, b} {
		var inside uint64
		var names []string
		err := Do(h.Path(), func() error {
			inside = inode(t, "/proc/thread-self/ns/net")
			ifs, err := net.Interfaces()
			for _, i := range ifs {
				names = append(names, i.Name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := inode(t, h.Path()); inside != want || inside == outside {
			t.Errorf("ran in namespace %d, want %d (outside is %d)", inside, want, outside)
		}
		if fmt.Sprint(names) != "[lo]" {
			t.Errorf("interfaces of a new namespace: got %v, want [lo]", names)
		}
	}
	if got := inode(t, "/proc/thread-self/ns/net"); got != outside {
		t.Errorf("the caller's thread is in namespace %d, want %d", got, outside)
	}
}

// After many calls from many goroutines no thread may be left in the namespace, the main thread neither.
func TestNoThreadStays(t *testing.T) {
	h := newNamespace(t)
	want := inode(t, "/proc/thread-self/ns/net")
	inside := inode(t, h.Path())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				err := h.Do(func() error {
					if got := inode(t, "/proc/thread-self/ns/net"); got != inside {
						return fmt.Errorf("in namespace %d, want %d", got, inside)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := inode(t, fmt.Sprintf("/proc/self/task/%d/ns/net", os.Getpid())); got != want {
		t.Errorf("main thread is in namespace %d, want %d", got, want)
	}
	for range 64 {
		wg.Go(func() {
			if got := inode(t, "/proc/thread-self/ns/net"); got != want {
				t.Errorf("a goroutine runs in namespace %d, want %d", got, want)
			}
		})
	}
	wg.Wait()
}

func TestErrors(t *testing.T) {
	h := newNamespace(t)
	mine := errors.New("mine")
	if err := h.Do(func() error { return mine }); err != mine {
		t.Errorf("error of f: got %v, want it unchanged", err)
	}
	if err := h.Do(func() error { runtime.Goexit(); return nil }); err != errGoexit {
		t.Errorf("Goexit: got %v, want %v", err, errGoexit)
	}
	never := func() error { t.Error("f ran"); return nil }
	if err := Do("/nowhere", never); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing path: got %v, want %v", err, os.ErrNotExist)
	}
	err := Do("/dev/null", never)
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "enter network namespace /dev/null: ") {
		t.Errorf("not a namespace: got %v", err)
	}
	h.Close()
	if err := h.Do(never); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed handle: got %v, want %v", err, unix.EBADF)
	}
}

func BenchmarkDo(b *testing.B) {
	h, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for b.Loop() {
		if err := h.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
