package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// Load is a number of TCP streams that send as fast as they can. Sender and receiver are child processes that do nothing
// else. Each stream has a thread of its own at both ends, a blocking socket with the kernel's own buffer sizes, and one
// buffer that is written or read in one system call and never looked at.
type Load struct {
	// Streams is how many connections send at once. Default 1.
	Streams int
	// Congestion is the congestion control at both ends. Default "cubic": with bbr, which paces, the kernel idles and its
	// challengers look better than they are.
	Congestion string
	// WarmUp is the time from when all streams have delivered something to when counting starts. Default 200 ms.
	WarmUp time.Duration
	// Time is how long is counted. Default 1 s.
	Time time.Duration
}

// bufferSize of each read and write in bytes: iperf3's, so that numbers can be compared.
const bufferSize = 128 << 10

// startTimeout is how long a stream may take to deliver its first byte.
const startTimeout = 5 * time.Second

// Roles of the children.
const (
	senderRole   = "bench-sender"
	receiverRole = "bench-receiver"
)

func init() {
	lab.RegisterRole(senderRole, func([]string) int { return eachStream(3, send) })
	lab.RegisterRole(receiverRole, func([]string) int {
		counters, err := mapCounters(3)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return eachStream(4, func(stream, fd int) error { return receive(fd, &counters[stream].n) })
	})
}

func (l Load) withDefaults() Load {
	if l.Streams == 0 {
		l.Streams = 1
	}
	if l.Congestion == "" {
		l.Congestion = "cubic"
	}
	if l.WarmUp == 0 {
		l.WarmUp = 200 * time.Millisecond
	}
	if l.Time == 0 {
		l.Time = time.Second
	}
	return l
}

// Run sends over a pair and returns what arrived.
func (l Load) Run(p *Pair) (r Result, err error) {
	l = l.withDefaults()
	memory, counters, err := newCounters()
	if err != nil {
		return r, err
	}
	defer memory.Close()
	defer unmapCounters(counters)
	conns, err := connect(p, l)
	if err != nil {
		return r, err
	}
	receiver := generator(receiverRole, append([]*os.File{memory}, conns.to...))
	sender := generator(senderRole, conns.from)
	err = errors.Join(receiver.Start(), sender.Start())
	conns.close() // the children have them now
	defer func() { err = errors.Join(err, end(sender), end(receiver)) }()
	if err != nil {
		return r, err
	}
	if err := awaitFlow(counters[:l.Streams], sender, receiver); err != nil {
		return r, err
	}
	time.Sleep(l.WarmUp)
	before, err := snapshot(counters, p.Daemons)
	if err != nil {
		return r, err
	}
	time.Sleep(l.Time)
	after, err := snapshot(counters, p.Daemons)
	if err != nil {
		return r, err
	}
	return after.since(before), ended(sender, receiver)
}

// generator returns a child with the given descriptors from 3 on. Signals by which Go preempts goroutines would only
// interrupt its system calls.
func generator(role string, files []*os.File) *lab.Process {
	p := lab.Command(nil, role)
	p.Files = files
	p.Env = []string{"GODEBUG=asyncpreemptoff=1"}
	return p
}

func end(p *lab.Process) error {
	if err := p.Kill(); err != nil && !errors.Is(err, lab.ErrNotStarted) {
		return err
	}
	return nil
}

// ended returns an error if one of the children is not there any more.
func ended(children ...*lab.Process) error {
	for _, c := range children {
		select {
		case <-c.Done():
			return fmt.Errorf("load generator ended: %w: %s", c.Wait(), strings.TrimSpace(c.Tail()))
		default:
		}
	}
	return nil
}

// awaitFlow waits until every stream has delivered something.
func awaitFlow(counters []counter, children ...*lab.Process) error {
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(time.Millisecond) {
		flowing := 0
		for i := range counters {
			if counters[i].n.Load() > 0 {
				flowing++
			}
		}
		if flowing == len(counters) {
			return nil
		}
		if err := ended(children...); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d streams delivered something within %v", flowing, len(counters), startTimeout)
		}
	}
}

// eachStream runs f for each descriptor from first on, on a thread each, until all have returned, and returns the exit
// code. The system calls inside are hidden from Go's scheduler, which would hand processors to and fro around each of them;
// so nothing here may need the world to stop, and garbage is not collected.
func eachStream(first int, f func(stream, fd int) error) int {
	debug.SetGCPercent(-1)
	var fds []int
	for fd := first; isStream(fd); fd++ {
		fds = append(fds, fd)
	}
	runtime.GOMAXPROCS(len(fds) + 1)
	code := atomic.Int32{}
	var wg sync.WaitGroup
	for stream, fd := range fds {
		wg.Go(func() {
			runtime.LockOSThread()
			if err := f(stream, fd); err != nil {
				fmt.Fprintf(os.Stderr, "stream %d: %v\n", stream, err)
				code.Store(1)
			}
		})
	}
	wg.Wait()
	return int(code.Load())
}

func isStream(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_STREAM
}

// send writes until the receiver is gone.
func send(_, fd int) error {
	b := newBuffer()
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), bufferSize)
		switch errno {
		case 0, unix.EINTR:
		case unix.EPIPE, unix.ECONNRESET:
			return nil
		default:
			return fmt.Errorf("send: %w", errno)
		}
	}
}

// receive reads until the sender is gone.
func receive(fd int, count *atomic.Int64) error {
	b := newBuffer()
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), bufferSize)
		switch {
		case errno == 0 && n > 0:
			count.Add(int64(n))
		case errno == 0, errno == unix.ECONNRESET:
			return nil
		case errno != unix.EINTR:
			return fmt.Errorf("receive: %w", errno)
		}
	}
}

// newBuffer returns memory that is really there: of pages never written all would be the one page of zeros, which lies in
// the processor's cache.
func newBuffer() []byte {
	b := make([]byte, bufferSize)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
