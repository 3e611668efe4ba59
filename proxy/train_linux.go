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
// takes no trains on this way.
func (o *outgoing) sendTrain(fd int, is4 bool, data []byte, size int, never *atomic.Bool) unix.Errno {
	for len(data) > size && !never.Load() {
		n := min(len(data), maxTrain*size, maxTrainLen/size*size)
		o.data, o.segment = data[:n], size
		if n <= size {
			o.segment = 0
		}
		if errno := o.send(fd, is4); errno == 0 {
			data = data[n:]
		} else if errno == unix.EINVAL || errno == unix.EIO || errno == unix.EMSGSIZE {
			never.Store(true)
		} else {
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
	return 0
}
