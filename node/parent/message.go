package parent

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/unixsock"
)

// A connection carries one request, a JSON object in one line, and its response, a JSON object up to the end of the stream.
// Sockets travel with the response's first byte. The response to a watch request is a byte for each change instead.
const (
	maxRequest  = 512
	maxResponse = 1 << 20 // about 5,000 interfaces
	maxSockets  = 64      // of one request; the kernel carries 253 (SCM_MAX_FD)
)

// The kinds of requests.
const (
	kindSocket     = "socket"
	kindInterfaces = "interfaces"
	kindWatch      = "watch"
)

type request struct {
	Kind     string `json:"kind"`
	Domain   int    `json:"domain,omitempty"`
	Type     int    `json:"type,omitempty"` // may carry SOCK_NONBLOCK and SOCK_CLOEXEC
	Protocol int    `json:"protocol,omitempty"`
	Count    int    `json:"count,omitempty"` // how many sockets, 0 for one; as many come as there are descriptors for
}

type response struct {
	Error      string               `json:"error,omitempty"`
	Errno      unix.Errno           `json:"errno,omitempty"` // what Error wraps
	Interfaces []underlay.Interface `json:"interfaces,omitempty"`
}

// decodeRequest reads a request and refuses what is not to be had.
func decodeRequest(b []byte) (r request, err error) {
	if err := unixsock.Decode(b, &r); err != nil {
		return request{}, err
	}
	switch r.Kind {
	case kindSocket:
		return r, r.checkSocket()
	case kindInterfaces, kindWatch:
		if r != (request{Kind: r.Kind}) {
			return request{}, fmt.Errorf("a request of kind %s has no socket", r.Kind)
		}
		return r, nil
	}
	return request{}, fmt.Errorf("unknown kind of request %q", r.Kind)
}

// socketFlags are the bits of a socket's type that are none.
const socketFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC

// sockets is how many sockets a request asks for.
func (r request) sockets() int {
	if r.Kind != kindSocket {
		return 0
	}
	return max(r.Count, 1)
}

// checkSocket lets TCP, UDP and ICMP echo sockets through.
func (r request) checkSocket() error {
	if r.Count < 0 || r.Count > maxSockets {
		return fmt.Errorf("%d sockets are not between 1 and %d", r.Count, maxSockets)
	}
	echo := map[int]int{unix.AF_INET: unix.IPPROTO_ICMP, unix.AF_INET6: unix.IPPROTO_ICMPV6}[r.Domain]
	if echo == 0 {
		return fmt.Errorf("address family %d is neither AF_INET nor AF_INET6", r.Domain)
	}
	switch typ := r.Type &^ socketFlags; {
	case typ == unix.SOCK_STREAM && (r.Protocol == 0 || r.Protocol == unix.IPPROTO_TCP):
	case typ == unix.SOCK_DGRAM && (r.Protocol == 0 || r.Protocol == unix.IPPROTO_UDP || r.Protocol == echo):
	default:
		return fmt.Errorf("type %d with protocol %d is none of TCP, UDP and ICMP echo", typ, r.Protocol)
	}
	return nil
}
