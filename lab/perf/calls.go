package perf

import (
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of a stream are hidden from Go's scheduler (RawSyscall), which would otherwise look every 20 µs whether a thread is
// back from its call, and give its place away. So a thread that waits in one of them cannot be stopped by Go, as the garbage
// collector or a change of GOMAXPROCS has to: while there are such threads neither happens (quiet), and what ends the waiting
// is shutdown(2), or the limit of time that the socket has.

// quiet counts the tests of this process that run.
var quiet struct {
	mu         sync.Mutex
	tests      int
	gcPercent  int
	processors int
}

// beQuiet makes room for the threads of a test beside the rest of the program, and stops the garbage collector until the func
// that it returns was called.
func beQuiet() (end func()) {
	quiet.mu.Lock()
	defer quiet.mu.Unlock()
	if quiet.tests++; quiet.tests == 1 {
		quiet.gcPercent = debug.SetGCPercent(-1) // after the end of a collection that runs
		quiet.processors = runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2*MaxStreams)
	}
	return sync.OnceFunc(func() {
		quiet.mu.Lock()
		defer quiet.mu.Unlock()
		if quiet.tests--; quiet.tests == 0 {
			runtime.GOMAXPROCS(quiet.processors)
			debug.SetGCPercent(quiet.gcPercent)
		}
	})
}

// call makes a system call as often as a signal interrupts it. What the arguments point to stays where it is meanwhile.
//
//go:uintptrescapes
func call(trap, fd, p1, p2, p3 uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(trap, fd, p1, p2, p3, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// read reads what there is, and waits for something. b must not be empty.
func read(fd int, b []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
}

// write writes all of b to a stream, b as one datagram to a socket of them. b must not be empty.
func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readFull fills b. The end of the stream is unix.ECONNRESET.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := read(fd, b)
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ECONNRESET
		}
		b = b[n:]
	}
	return nil
}

// accept waits for a connection.
func accept(fd int) (int, error) {
	return call(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC)
}

// closeSocket closes a socket.
func closeSocket(fd int) { _, _ = call(unix.SYS_CLOSE, uintptr(fd), 0, 0, 0) }

// mmsghdr is struct mmsghdr of sendmmsg(2) and recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      uint32
}

// newBatch returns messages over the parts of a buffer, size bytes each.
func newBatch(buf []byte, size int) []mmsghdr {
	batch := make([]mmsghdr, len(buf)/size)
	vectors := make([]unix.Iovec, len(batch))
	for i := range batch {
		vectors[i].Base = &buf[i*size]
		vectors[i].SetLen(size)
		batch[i].header.Iov = &vectors[i]
		batch[i].header.SetIovlen(1)
	}
	return batch
}

// sendBatch sends messages and returns how many went.
func sendBatch(fd int, batch []mmsghdr) (int, error) {
	return call(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&batch[0])), uintptr(len(batch)), 0)
}

// receiveBatch waits for a message and returns how many there were.
func receiveBatch(fd int, batch []mmsghdr) (int, error) {
	return call(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&batch[0])), uintptr(len(batch)), unix.MSG_WAITFORONE)
}
