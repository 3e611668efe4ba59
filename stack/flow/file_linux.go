package flow

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// layoutVersion is the format of the file: header, entries, affinities, packet.Flow.Hash and packet.AddrKey.Hash. A daemon that knows another one starts with
// an empty table.
const layoutVersion = 3

// headerSize keeps the entries page-aligned.
const headerSize = 4096

var magic = [8]byte{'m', 'w', 'f', 'l', 'o', 'w', 's', 0}

// header starts the file. bootID ties it to this run of the kernel: the clock, the devices and the peers' connections
// do not outlive it.
type header struct {
	magic      [8]byte
	layout     uint32
	entrySize  uint32
	entries    uint64
	seed       uint64
	bootID     [40]byte
	generation atomic.Uint32
}

var _ [headerSize - int(unsafe.Sizeof(header{}))]byte // the header fits its page

func (h *header) init(entries int) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	h.magic, h.layout, h.entrySize, h.entries = magic, layoutVersion, entrySize, uint64(entries)
	h.seed = binary.NativeEndian.Uint64(seed[:])
	h.bootID = bootID()
}

func (h *header) fits(entries int) bool {
	return h.magic == magic && h.layout == layoutVersion && h.entrySize == entrySize &&
		h.entries == uint64(entries) && h.bootID == bootID()
}

func bootID() (id [40]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	copy(id[:], b)
	return id
}

// ErrInUse says that another process has the table's file open.
var ErrInUse = errors.New("flow table is in use by another process")

// Open maps the table in the given file, which should lie in a tmpfs, and creates it if there is none. A file of another
// layout, size or boot is replaced by an empty table. The file is locked: two daemons on it are an error (ErrInUse). The
// flows found are kept; what was torn in the middle of a write, or cannot have been written by a table, is freed.
func Open(path string, entries int) (*Table, error) {
	n := roundEntries(entries)
	_, missing := os.Lstat(path)
	fresh := errors.Is(missing, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open flow table: directory %s does not exist", filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open flow table: %w", err)
	}
	size := fileSize(n)
	if err := prepareFile(f, n, size); err != nil {
		_ = f.Close()
		if fresh {
			_ = os.Remove(path)
		}
		return nil, fmt.Errorf("open flow table %s: %w", path, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("map flow table %s: %w", path, err)
	}
	t := &Table{
		head:    (*header)(unsafe.Pointer(&mem[0])),
		entries: unsafe.Slice((*entry)(unsafe.Pointer(&mem[headerSize])), n),
	}
	t.affinities.entries = unsafe.Slice((*affinity)(unsafe.Pointer(&mem[headerSize+n*entrySize])), affinitiesBeside(n))
	t.unmap = func() error { return errors.Join(unix.Munmap(mem), f.Close()) } // the lock ends with the file
	t.finish()
	t.recover()
	t.reopened = t.head.generation.Load() > 0
	return t, nil
}

// fileSize returns the size of the file of a table with n entries, in bytes.
func fileSize(n int) int { return headerSize + n*entrySize + affinitiesBeside(n)*affinitySize }

// prepareFile locks the file and makes sure that it holds a header that fits.
func prepareFile(f *os.File, entries, size int) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if is, err := f.Stat(); err != nil {
		return err
	} else if at, err := os.Stat(f.Name()); err != nil || !os.SameFile(is, at) {
		return ErrInUse // somebody has removed it since it was opened, and may have made another one
	}
	var page [headerSize]byte
	h := (*header)(unsafe.Pointer(&page[0]))
	_, err := io.ReadFull(f, page[:])
	if err == nil && h.fits(entries) {
		return reserve(f, size)
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := reserve(f, size); err != nil {
		return err
	}
	page = [headerSize]byte{}
	h.init(entries)
	_, err = f.WriteAt(page[:], 0)
	return err
}

// reserve makes the file size bytes long and takes their memory now: a full file system is an error here, and would be
// SIGBUS at some packet later.
func reserve(f *os.File, size int) error {
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("reserve %d KiB in its file system: %w", size/1024, err)
	}
	return nil
}

// recover counts the flows found and frees torn entries and those that no table has written.
func (t *Table) recover() {
	now := t.now()
	for i := range t.entries {
		e := &t.entries[i]
		if torn := e.version.Load()&1 == 1; torn || e.is(used) && !t.sound(Ref(i)) {
			e.write(func() { e.state.Store(0) })
		}
		if int(e.twin.Load()) >= len(t.entries) {
			e.twin.Store(uint32(i))
		}
		if !e.is(used) {
			continue
		}
		if int32(now-e.seen.Load()) < 0 {
			e.seen.Store(now)
		}
		// Generations stay ahead of all entries, whatever the header says.
		if g := &t.head.generation; int32(e.generation-g.Load()) > 0 {
			g.Store(e.generation)
		}
		t.restored++
	}
	t.flows.Store(int64(t.restored))
	t.affinities.recover(now)
}

// sound reports whether an entry can have been written by a table: it lies where it is looked for, its verdict is one, and
// what it leaves as is of its protocol and family.
func (t *Table) sound(ref Ref) bool {
	e := &t.entries[ref]
	to := e.leavesAs()
	return t.bucket(t.hash(e.flow)) == t.bucketOf(ref) && e.action <= ToOutside &&
		to.Proto() == e.flow.Proto() && to.Is4() == e.flow.Is4()
}

// bootClock returns a clock in seconds since boot; unlike the wall clock it neither jumps nor goes back, and a restarted
// daemon reads the same one.
func bootClock() func() uint32 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	base, start := time.Duration(ts.Nano()), time.Now()
	return func() uint32 { return uint32((base+time.Since(start))/time.Second) + 1 }
}
