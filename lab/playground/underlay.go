package playground

import (
	"fmt"

	"github.com/middleway-net/middleway/lab"
)

// Underlay is how the nodes reach each other. Nodes, pods and status see nothing of it but the configurations that come out.
type Underlay string

// The ways to join nodes.
const (
	// Auto is Machine for an ordinary user, who shows by it how rootless nodes of several machines would meet, else Kernel.
	Auto Underlay = "auto"
	// Kernel is a network of veth between the nodes' namespaces; where the kernel has none, Userspace.
	Kernel Underlay = "kernel"
	// Userspace is a switch of the lab's own between the nodes' namespaces.
	Userspace Underlay = "userspace"
	// Machine is the machine's own loopback: the process outside of the cluster's namespaces hands sockets in to the daemons.
	Machine Underlay = "machine"
)

// Set makes an Underlay a flag.
func (u *Underlay) Set(s string) error {
	switch Underlay(s) {
	case Auto, Kernel, Userspace, Machine:
		*u = Underlay(s)
		return nil
	}
	return fmt.Errorf("want auto, kernel, userspace or machine")
}

func (u *Underlay) String() string { return string(*u) }

// Type names the kind of value in a flag's help.
func (u *Underlay) Type() string { return "way" }

// chosen returns what Auto stands for. It is known only after lab.Enter.
func (u Underlay) chosen() Underlay {
	switch {
	case u != Auto:
		return u
	case lab.InUserNamespace():
		return Machine
	}
	return Kernel
}

// join sets what the lab makes.
func (u Underlay) join(lc *lab.ClusterConfig) {
	switch u.chosen() {
	case Machine:
		lc.Outside = true
	case Userspace:
		lc.Underlay.Userspace = true
	}
}

// describeUnderlay tells what joins the nodes in the end.
func describeUnderlay(cl *lab.Cluster) string {
	switch {
	case cl.Underlay == nil:
		return "the machine's loopback"
	case cl.Underlay.Link() != nil:
		return "a switch in userspace"
	}
	return "the kernel's veth"
}
