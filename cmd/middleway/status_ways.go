package main

import (
	"fmt"
	"io"

	"github.com/middleway-net/middleway/node"
)

// printWays prints what there is to say of the ways into the cluster and out of it.
func printWays(w io.Writer, st node.WaysStatus) {
	sockets := ""
	if st.Sockets != "" {
		sockets = " by sockets from " + st.Sockets
	}
	egress := "off"
	if st.Egress {
		egress = fmt.Sprintf("%d connections, %d UDP flows, %d pings%s", st.TCP.Open, st.UDP.Open, st.Echo.Open, sockets)
	}
	fmt.Fprintf(w, "outside   %s\n", egress)
	if n := st.TCP.Limited; n > 0 {
		fmt.Fprintf(w, "problem   %d connections were dropped: too many with the outside at once, or of one client\n", n)
	}
	if n := st.TCP.AcceptErrors; n > 0 {
		fmt.Fprintf(w, "problem   listeners could not take a client %d times, see the log: more open files may have to be allowed\n", n)
	}
	what := "node ports and host ports"
	if !st.NodePorts {
		what = "host ports"
	}
	fmt.Fprintf(w, "listeners %d for %s at %s\n", st.Listeners, what, joined(st.Addresses))
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem   %s for %s is not served: %s\n", p.Listener, p.For, p.Why)
	}
}
