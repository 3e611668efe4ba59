package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// batchSize is how many messages one system call sends or receives at most.
const batchSize = 64

// maxNumber is more than any datagram bears, and less than a hello's first 8 bytes.
const maxNumber = 1 << 60

// hello returns the datagram that opens a stream.
func hello(token []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, ^uint64(0))
	return append(b, token...)
}

// sendDatagrams sends numbered datagrams until it is told to stop, and counts them.
func sendDatagrams(fd int, t Test, stop *atomic.Bool) error {
	if t.Segments > 1 {
		if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, t.Size); err != nil {
			return fmt.Errorf("set UDP_SEGMENT: this kernel cannot: %w", err)
		}
	}
	buf := newBuffer(batchSize * t.Segments * t.Size)
	batch := newBatch(buf, t.Segments*t.Size)
	number := uint64(0)
	for !stop.Load() {
		for at := 0; at < len(buf); at += t.Size {
			number++
			binary.BigEndian.PutUint64(buf[at:], number)
		}
		for rest := batch; len(rest) > 0; {
			n, err := sendBatch(fd, rest)
			switch {
			case errors.Is(err, unix.ENOBUFS):
				n = 1 // this one is lost, as in any queue that is full
			case errors.Is(err, unix.EMSGSIZE):
				return fmt.Errorf("send %d bytes: %w: the path does not take datagrams of this size", t.Size, err)
			case err != nil:
				return fmt.Errorf("send: %w", err)
			}
			rest = rest[n:]
		}
	}
	return nil
}

// receiveDatagrams counts the datagrams of one client, and by their numbers those that were sent.
func receiveDatagrams(fd int, t Test, c *counter) error {
	buf := newBuffer(batchSize * t.Size)
	batch := newBatch(buf, t.Size)
	latest := uint64(0)
	for {
		n, err := receiveBatch(fd, batch)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		packets := int64(0)
		for i := range batch[:n] {
			number := binary.BigEndian.Uint64(buf[i*t.Size:])
			if int(batch[i].length) != t.Size || number > maxNumber {
				continue // a late hello; and the empty one that shutdown returns
			}
			packets++
			latest = max(latest, number)
		}
		if packets == 0 && batch[0].length == 0 {
			return nil
		}
		c.packets.Add(packets)
		c.sent.Store(int64(latest))
	}
}
