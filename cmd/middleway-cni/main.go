// Command middleway-cni is the CNI plugin of middleway, which a container runtime executes: package cni behind the
// environment and standard streams of the CNI specification.
package main

import (
	"os"

	"github.com/middleway-net/middleway/cni"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(cni.Main(version)) }
