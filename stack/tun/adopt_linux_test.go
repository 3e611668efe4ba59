package tun_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/tun"
)

func makeIn(t *testing.T, n *lab.Namespace, c tun.Config, portable bool) (queues []int) {
	t.Helper()
	must(t, n.Do(func() (err error) {
		queues, err = tun.Make(c, portable)
		return err
	}))
	return queues
}

// duplicates are what another process gets of descriptors.
func duplicates(t *testing.T, fds []int) (copies []int) {
	t.Helper()
	for _, fd := range fds {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		copies = append(copies, c)
	}
	return copies
}

func inodeOf(t *testing.T, n *lab.Namespace) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(n.Path(), &st))
	return st.Ino
}

// A device that one process makes and another adopts stays as long as the other wants.
func TestAdopt(t *testing.T) {
	for _, portable := range []bool{false, true} {
		n := newNamespace(t, "pod")
		c := tun.Config{Name: "eth0", MTU: mtu, Queues: 3, NetnsInode: inodeOf(t, n)}
		before := countFDs(t)
		made := makeIn(t, n, c, portable)
		if want := map[bool]int{false: 3, true: 1}[portable]; len(made) != want {
			t.Fatalf("%d queues, want %d", len(made), want)
		}
		err := n.Do(func() error {
			_, err := tun.Make(c, portable)
			return err
		})
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("made twice: %v, want %v", err, fs.ErrExist)
		}
		var dev interface {
			io.Closer
			SetPersist(bool) error
		}
		if portable {
			dev, err = tun.AdoptPortable(c, duplicates(t, made))
		} else {
			dev, err = tun.Adopt(c, duplicates(t, made))
		}
		must(t, err)
		tun.CloseQueues(made)
		first := index(t, n, "eth0")
		must(t, dev.SetPersist(true))
		must(t, dev.Close())
		if again := index(t, n, "eth0"); first == 0 || again != first {
			t.Errorf("interface %d became %d", first, again)
		}
		// The next daemon takes it up; without the wish to keep it, it goes.
		must(t, n.Do(func() (err error) {
			if portable {
				dev, err = tun.OpenPortable(c)
			} else {
				dev, err = tun.Open(c)
			}
			return err
		}))
		must(t, dev.SetPersist(false))
		must(t, dev.Close())
		if got := index(t, n, "eth0"); got != 0 {
			t.Errorf("interface %d is still there", got)
		}
		if after := countFDs(t); after != before {
			t.Errorf("%d descriptors open, %d before", after, before)
		}
	}
}

// What is not the device that it should be is refused and closed.
func TestAdoptRefuses(t *testing.T) {
	n, other := newNamespace(t, "pod"), newNamespace(t, "other")
	c := tun.Config{Name: "eth0", MTU: mtu, Queues: 2, NetnsInode: inodeOf(t, n)}
	before := countQueues(t)
	good := makeIn(t, n, c, false)
	renamed := c
	renamed.Name = "eth1"
	for _, tt := range []struct {
		name     string
		portable bool
		fds      func() []int
		words    string
	}{
		{"nothing", false, func() []int { return nil }, "0 queues"},
		{"nothing, portable", true, func() []int { return nil }, "0 queues"},
		{"no tun device", false, func() []int { return []int{openFile(t, "/dev/null", unix.O_RDWR)} }, "no queue of a tun device"},
		{"a queue of none", false, func() []int { return []int{openFile(t, "/dev/net/tun", unix.O_RDWR)} }, "no queue of a tun device"},
		{"a file among queues", false, func() []int {
			return append(duplicates(t, good), openFile(t, "/dev/null", unix.O_RDWR))
		}, "no queue of a tun device"},
		{"another name", false, func() []int { return makeIn(t, n, renamed, false) }, `queue of "eth1"`},
		{"another namespace", false, func() []int { return makeIn(t, other, c, false) }, "in namespace"},
		{"another kind", true, func() []int { return duplicates(t, good[:1]) }, "flags"},
		{"too many for the kind", true, func() []int { return duplicates(t, good) }, "want one"},
		{"a portable one", false, func() []int { return makeIn(t, newNamespace(t, "third"), c, true) }, "flags"},
		{"a detached queue", false, func() []int {
			fds := makeIn(t, newNamespace(t, "fourth"), c, false)
			req, err := unix.NewIfreq("")
			must(t, err)
			req.SetUint16(unix.IFF_DETACH_QUEUE)
			must(t, unix.IoctlIfreq(fds[1], unix.TUNSETQUEUE, req))
			tun.CloseQueues(fds[:1])
			return fds[1:]
		}, "detached"},
		{"another header", false, func() []int {
			fds := makeIn(t, newNamespace(t, "fifth"), c, false)
			must(t, unix.IoctlSetPointerInt(fds[0], unix.TUNSETVNETHDRSZ, 12))
			return fds
		}, "header of 12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fds := tt.fds()
			var err error
			if tt.portable {
				_, err = tun.AdoptPortable(c, fds)
			} else {
				_, err = tun.Adopt(c, fds)
			}
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
		})
	}
	dev, err := tun.Adopt(c, duplicates(t, good))
	must(t, err)
	if got := countQueues(t); got != before+4 {
		t.Errorf("%d queues open, want %d", got, before+4)
	}
	must(t, dev.Close())
	tun.CloseQueues(good)
	if after := countQueues(t); after != before {
		t.Errorf("%d queues open, %d before", after, before)
	}
}

// countQueues returns how many descriptors of TUN devices (character device 10:200) are open.
func countQueues(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat("/proc/self/fd/"+e.Name(), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(10, 200) {
			n++
		}
	}
	return n
}

func openFile(t *testing.T, path string, mode int) int {
	t.Helper()
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	must(t, err)
	return fd
}
