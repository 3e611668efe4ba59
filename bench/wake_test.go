package bench

import (
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkWake is how long a small message takes to a goroutine and back, by the way in which that goroutine waits; the
// asking side always blocks in read(2) on a thread of its own. Half of it is the price of a packet that meets an idle worker.
func BenchmarkWake(b *testing.B) {
	for _, w := range []struct {
		name string
		wait func(fd int) (read func([]byte) bool)
	}{
		{"netpoll", waitNetpoll},
		{"blocking", waitBlocking},
		{"epoll", func(fd int) func([]byte) bool { return waitEpoll(fd, 0) }},
		{"epoll+spin50us", func(fd int) func([]byte) bool { return waitEpoll(fd, spin) }},
	} {
		b.Run("wait="+w.name, func(b *testing.B) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				read := w.wait(fds[1])
				for message := make([]byte, 8); read(message); {
					_, _ = unix.Write(fds[1], message)
				}
			}()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			message := make([]byte, 8)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = unix.Write(fds[0], message)
				if n, err := unix.Read(fds[0], message); n != len(message) {
					b.Fatal(n, err)
				}
			}
			_ = unix.Close(fds[0])
			<-done
		})
	}
}

// Each of these takes ownership of fd and returns what reads a message from it, false at the end.

func waitNetpoll(fd int) func([]byte) bool {
	_ = unix.SetNonblock(fd, true)
	f := os.NewFile(uintptr(fd), "wake")
	return func(b []byte) bool {
		n, err := f.Read(b)
		return n > 0 && err == nil
	}
}

func waitBlocking(fd int) func([]byte) bool {
	return func(b []byte) bool {
		n, _ := unix.Read(fd, b)
		return n > 0
	}
}

// waitEpoll reads without blocking, and before it sleeps polls for the time of spinning.
func waitEpoll(fd int, spinning time.Duration) func([]byte) bool {
	_ = unix.SetNonblock(fd, true)
	epoll, _ := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	_ = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	p := &poller{epoll: epoll, credit: maxCredit, spinTime: spinning}
	return func(b []byte) bool {
		for {
			if _, err := p.wait(); err != nil {
				return false
			}
			n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
			if errno != unix.EAGAIN {
				return errno == 0 && n > 0
			}
		}
	}
}
