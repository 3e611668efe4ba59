package lab

import (
	"testing"
	"time"
)

// BenchmarkTCP sends TCP between two namespaces over each way of joining them. One round is 16 MiB.
func BenchmarkTCP(b *testing.B) {
	const size = 16 << 20
	run := func(name string, cfg UnderlayConfig, offloads bool) {
		b.Run(name, func(b *testing.B) {
			nodes := []*Namespace{newNamespace(b, "node1"), newNamespace(b, "node2")}
			newUnderlay(b, cfg, nodes...)
			for _, n := range nodes {
				if offloads {
					break
				}
				if err := SetOffloads(n, "eth0", false); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(size)
			for b.Loop() {
				transfer(b, nodes[0], nodes[1], NodeAddr4(2).Addr(), size)
			}
		})
	}
	run("veth", UnderlayConfig{}, true)
	run("veth offloads off", UnderlayConfig{}, false)
	run("link", UnderlayConfig{Userspace: true}, true)
	run("link 100 µs", UnderlayConfig{Faults: Faults{Delay: 100 * time.Microsecond}}, true)
	run("link jumbo", UnderlayConfig{Userspace: true, MTU: 9000}, true)
}

// BenchmarkKernelVXLAN sends TCP between pods of two kernel nodes.
func BenchmarkKernelVXLAN(b *testing.B) {
	const size = 64 << 20
	nodes := []*Namespace{newNamespace(b, "node1"), newNamespace(b, "node2")}
	newUnderlay(b, UnderlayConfig{}, nodes...)
	one, two := newKernelVXLAN(b, nodes[0], 1, 2), newKernelVXLAN(b, nodes[1], 2, 1)
	x, y := addPod(b, one.KernelBridge), addPod(b, two.KernelBridge)
	b.SetBytes(size)
	for b.Loop() {
		transfer(b, x.Namespace, y.Namespace, y.Addrs[0], size)
	}
}
