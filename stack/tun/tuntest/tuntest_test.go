package tuntest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

func open(t *testing.T, queues int) *Device {
	t.Helper()
	d, err := New(queues)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// readable asks a level-triggered epoll, as a worker does.
func readable(t *testing.T, epoll int) bool {
	t.Helper()
	var events [4]unix.EpollEvent
	n, err := unix.EpollWait(epoll, events[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func watch(t *testing.T, q *Queue) (epoll int) {
	t.Helper()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(epoll) })
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, q.FD(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	return epoll
}

func TestRead(t *testing.T) {
	d := open(t, 2)
	q := d.Queues()[1]
	epoll := watch(t, q)
	if readable(t, epoll) {
		t.Error("readable without a frame")
	}
	frame := []byte("frame 1")
	d.Inject(1, frame)
	copy(frame, "changed")
	d.Inject(1, []byte("frame 2"))
	d.Inject(0, []byte("elsewhere"))
	var b [100]byte
	for i := 1; i <= 2; i++ {
		for range 2 { // it is told again until the frame is read
			if !readable(t, epoll) {
				t.Errorf("frame %d waits: not readable", i)
			}
		}
		if n, err := q.Read(b[:]); err != nil || string(b[:n]) != fmt.Sprint("frame ", i) {
			t.Errorf("got %q, %v, want frame %d", b[:n], err, i)
		}
	}
	if readable(t, epoll) {
		t.Error("readable after the last frame")
	}
	if _, err := q.Read(b[:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, want EAGAIN", err)
	}
	d.Inject(1, []byte("longer"))
	if n, err := q.Read(b[:4]); err != nil || string(b[:n]) != "long" {
		t.Errorf("too small: got %q, %v", b[:n], err)
	}
}

func TestWrite(t *testing.T) {
	d := open(t, 2)
	part := []byte("c")
	for _, err := range []error{
		d.Queues()[1].Write([]byte("a"), nil),
		d.Queues()[0].Write([]byte("b"), [][]byte{part, []byte("d")}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	part[0] = 'x'
	w := d.Written()
	if len(w) != 2 || w[0].Queue != 1 || string(w[0].Frame) != "a" || w[1].Queue != 0 || string(w[1].Frame) != "bcd" {
		t.Errorf("got %v, want a on 1 and bcd on 0", w)
	}
	if w := d.Written(); w != nil {
		t.Errorf("again: got %v, want nothing", w)
	}
}

func TestRemove(t *testing.T) {
	d := open(t, 1)
	q := d.Queues()[0]
	epoll := watch(t, q)
	d.Inject(0, []byte("lost"))
	d.Remove()
	d.Remove()
	if !readable(t, epoll) {
		t.Error("nobody is told")
	}
	if _, err := q.Read(make([]byte, 9)); !errors.Is(err, unix.EBADFD) {
		t.Errorf("Read: got %v, want EBADFD", err)
	}
	if err := q.Write([]byte("x"), nil); !errors.Is(err, unix.EBADFD) || d.Written() != nil {
		t.Errorf("Write: got %v, want EBADFD", err)
	}
	for range 2 {
		if err := d.Close(); err != nil || q.FD() != -1 {
			t.Errorf("Close: got %v, descriptor %d", err, q.FD())
		}
	}
	d.Inject(0, []byte("lost"))
}

func TestFrame(t *testing.T) {
	o := packet.Offload{NeedsChecksum: true, ChecksumStart: 20, ChecksumOffset: 16}
	frame := Frame(o, []byte("packet"))
	if got, err := packet.DecodeOffload(frame); err != nil || got != o || !bytes.Equal(frame[packet.VnetLen:], []byte("packet")) {
		t.Errorf("got %+v, %v, % x", got, err, frame)
	}
}

// TestConcurrent: every frame arrives once. Run it with -race.
func TestConcurrent(t *testing.T) {
	const frames = 1000
	d := open(t, 1)
	q := d.Queues()[0]
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for i := range frames {
				d.Inject(0, []byte{byte(i)})
			}
		})
	}
	group.Go(func() {
		var b [10]byte
		for got := 0; got < 2*frames; {
			polled := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
			_, _ = unix.Poll(polled, 1000)
			n, err := q.Read(b[:])
			if err != nil {
				t.Errorf("after %d: readable, but got %v", got, err)
				return
			}
			_ = q.Write(b[:n], nil)
			got++
		}
	})
	group.Wait()
	if got := len(d.Written()); got != 2*frames {
		t.Errorf("got %d frames, want %d", got, 2*frames)
	}
}
