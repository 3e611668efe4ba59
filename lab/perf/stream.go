package perf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writesPerSelect is how often iperf3 writes before it looks for what else is to be done.
const writesPerSelect = 10

// selectTime is the limit of a select(2): what is left of a second in iperf3. It is never reached, but the kernel must arm a timer for it.
const selectTime = 900 * time.Millisecond

// sendStream writes until the receiver is gone.
func sendStream(fd int, t Test) error {
	b := newBuffer(t.Size)
	for writes := 0; ; writes++ {
		if t.Select && writes%writesPerSelect == 0 {
			if err := selectFor(fd, true); err != nil {
				return err
			}
		}
		if err := write(fd, b); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// receiveStream reads to the end.
func receiveStream(fd int, t Test, received *atomic.Int64) error {
	if t.Select {
		return receiveBySelect(fd, t, received)
	}
	b := newBuffer(t.Size)
	for {
		n, err := read(fd, b)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			return nil
		}
		received.Add(int64(n))
	}
}

// receiveBySelect fills the buffer after each select as far as it can without waiting.
func receiveBySelect(fd int, t Test, received *atomic.Int64) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	b := newBuffer(t.Size)
	for {
		if err := selectFor(fd, false); err != nil {
			return err
		}
		for filled := 0; filled < len(b); {
			n, err := read(fd, b[filled:])
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if n == 0 {
				return nil
			}
			filled += n
			received.Add(int64(n))
		}
	}
}

// selectFor waits until a descriptor can be written or read.
func selectFor(fd int, write bool) error {
	for {
		var set unix.FdSet
		set.Set(fd)
		readable, writable := &set, (*unix.FdSet)(nil)
		if write {
			readable, writable = nil, &set
		}
		limit := unix.NsecToTimespec(int64(selectTime))
		n, _, errno := unix.RawSyscall6(unix.SYS_PSELECT6, uintptr(fd+1), uintptr(unsafe.Pointer(readable)), uintptr(unsafe.Pointer(writable)), 0,
			uintptr(unsafe.Pointer(&limit)), 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("select: %w", errno)
		}
		if errno == 0 && n > 0 {
			return nil
		}
	}
}

// newBuffer returns memory that is really there: of pages never written all would be the one page of zeros, which lies in
// the processor's cache.
func newBuffer(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
