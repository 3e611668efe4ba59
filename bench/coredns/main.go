// Command coredns is CoreDNS as it is released, for bench/dns to compare with. It is a Go module of its own, so that nothing of it reaches
// ours.
package main

import (
	_ "github.com/coredns/coredns/core/plugin" // all plugins
	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
