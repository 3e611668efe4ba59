// Package tool is the small clients and servers with which the demo, tests, benchmarks and people look at a pod network from
// the pods' side: echo requests and the way that they take, DNS, HTTP that tells whom the server saw, and a download checked by its
// hash that knows its longest stall. It knows only sockets, given by the caller or opened in the calling thread's namespace, so
// that it measures middleway and the kernel alike.
package tool

import (
	"context"
	"net"
)

// Dial makes a connection, for example (*lab.Namespace).Dial or (*net.Dialer).DialContext.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)
