// Package unixsock is what the programs of a node say to each other over unix sockets stands on: a listening socket at a path, for one
// user alone; bytes with descriptors beside them (SCM_RIGHTS); who is at the other end (SO_PEERCRED); and JSON that says no more than
// it may. It knows none of their protocols.
package unixsock
