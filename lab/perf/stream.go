package perf

import (
	"fmt"
	"sync/atomic"
)

// sendStream writes until the receiver is gone.
func sendStream(fd int, t Test) error {
	b := newBuffer(t.Size)
	for {
		if err := write(fd, b); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// receiveStream reads to the end.
func receiveStream(fd int, t Test, received *atomic.Int64) error {
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

// newBuffer returns memory that is really there: of pages never written all would be the one page of zeros, which lies in
// the processor's cache.
func newBuffer(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
