package proxy

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Limits of a train that the kernel cuts (UDP_MAX_SEGMENTS before Linux 6.9, and what an IPv4 packet holds beside its headers).
const (
	maxTrain    = 64
	maxTrainLen = 65507
)

// sendTrain sends data as datagrams of a size each but the last, by as few calls as the kernel takes them. never is set when it
// takes no trains on this way, though it takes their datagrams.
func (o *outgoing) sendTrain(fd int, is4 bool, data []byte, size int, never *atomic.Bool) unix.Errno {
	refused := false
	for len(data) > size && !refused && !never.Load() {
		n := min(len(data), maxTrain*size, maxTrainLen/size*size)
		o.data, o.segment = data[:n], size
		if n <= size {
			o.segment = 0
		}
		switch errno := o.send(fd, is4); errno {
		case 0:
			data = data[n:]
		case unix.EINVAL, unix.EIO, unix.EMSGSIZE:
			refused = true
		default:
			return errno
		}
	}
	o.segment = 0
	for len(data) > 0 {
		o.data = data[:min(size, len(data))]
		if errno := o.send(fd, is4); errno != 0 {
			return errno
		}
		data = data[len(o.data):]
	}
	if refused {
		never.Store(true)
	}
	return 0
}
