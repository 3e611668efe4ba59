package bench

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// counter is what one stream has delivered, in bytes, on a cache line of its own. It lies in memory that the receiving
// child shares with us, so that bytes and processor times are read at the same moment and the child need not speak.
type counter struct {
	n atomic.Int64
	_ [56]byte
}

// maxStreams is how many counters there are.
const maxStreams = 64

const countersSize = maxStreams * int(unsafe.Sizeof(counter{}))

// newCounters makes memory for counters; the file is for the child.
func newCounters() (*os.File, []counter, error) {
	fd, err := unix.MemfdCreate("bench-counters", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("make memory for counters: %w", err)
	}
	f := os.NewFile(uintptr(fd), "counters")
	if err := f.Truncate(int64(countersSize)); err != nil {
		_ = f.Close()
		return nil, nil, fmt.Errorf("make memory for counters: %w", err)
	}
	counters, err := mapCounters(fd)
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, counters, nil
}

func mapCounters(fd int) ([]counter, error) {
	b, err := unix.Mmap(fd, 0, countersSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map counters: %w", err)
	}
	return unsafe.Slice((*counter)(unsafe.Pointer(&b[0])), maxStreams), nil
}

func unmapCounters(c []counter) {
	_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), countersSize))
}

// moment is what was used and delivered up to a time.
type moment struct {
	at    time.Time
	bytes int64
	cpu   time.Duration
}

func snapshot(counters []counter, daemons []*lab.Process) (m moment, err error) {
	m.at = time.Now()
	for i := range counters {
		m.bytes += counters[i].n.Load()
	}
	for _, d := range daemons {
		used, err := d.CPUTime()
		if err != nil {
			return m, err
		}
		m.cpu += used
	}
	return m, nil
}

func (m moment) since(before moment) Result {
	return Result{Bytes: m.bytes - before.bytes, Elapsed: m.at.Sub(before.at), DaemonCPU: m.cpu - before.cpu}
}
