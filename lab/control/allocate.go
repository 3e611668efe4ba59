package control

import (
	"fmt"
	"hash/fnv"
	"math/big"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// allocator knows who has which ClusterIP and node port.
type allocator struct {
	ranges []netip.Prefix
	addrs  map[netip.Addr]name
	ports  map[int32]name // a number is one Service's for all protocols
}

func newAllocator(ranges []netip.Prefix) *allocator {
	return &allocator{ranges: ranges, addrs: map[netip.Addr]name{}, ports: map[int32]name{}}
}

// families are those of the ranges.
func (a *allocator) families() (all []corev1.IPFamily) {
	for _, r := range a.ranges {
		all = append(all, manifest.FamilyOf(r.Addr()))
	}
	return all
}

// rangeOf returns the range of a family.
func (a *allocator) rangeOf(f corev1.IPFamily) (netip.Prefix, bool) {
	for _, r := range a.ranges {
		if manifest.FamilyOf(r.Addr()) == f {
			return r, true
		}
	}
	return netip.Prefix{}, false
}

// take notes whose an address is.
func (a *allocator) take(addr netip.Addr, n name) { a.addrs[addr] = n }

// set makes addresses and node ports those of a Service, and no others; a port 0 is none.
func (a *allocator) set(n name, addrs []netip.Addr, ports []int32) {
	for addr, of := range a.addrs {
		if of == n {
			delete(a.addrs, addr)
		}
	}
	for port, of := range a.ports {
		if of == n {
			delete(a.ports, port)
		}
	}
	for _, addr := range addrs {
		a.addrs[addr] = n
	}
	for _, port := range ports {
		if port != 0 {
			a.ports[port] = n
		}
	}
}

// maxBand bounds the addresses at the beginning of a range that are given only to who asks for them (KEP-3070).
const maxBand = 256

// pick returns a free address of a family. It begins where the Service's name says, so that a Service has the same address in every
// cluster of the same manifests.
func (a *allocator) pick(f corev1.IPFamily, n name) (netip.Addr, error) {
	r, ok := a.rangeOf(f)
	if !ok {
		return netip.Addr{}, fmt.Errorf("the cluster has no range of %s", f)
	}
	size := uint64(1) << min(r.Addr().BitLen()-r.Bits(), 32)
	first := min(max(16, size/16), maxBand, size/2)
	last := size - 1 // the broadcast address of IPv4 is nobody's
	for i := range last - first {
		addr := offset(r, first+(hash(n)+i)%(last-first))
		if _, taken := a.addrs[addr]; !taken {
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free", r)
}

// nodePortBand is how many numbers at the beginning of the range are given to who asks for none only when the others are gone
// (KEP-3668, of which it is min(max(16, size/32), 128)).
const nodePortBand = 86

// pickPort returns a free node port other than those of also, and begins where the Service's name says.
func (a *allocator) pickPort(n name, also map[int32]bool) (int32, error) {
	const size = manifest.LastNodePort - manifest.FirstNodePort + 1
	free := func(number int32) bool {
		_, taken := a.ports[number]
		return !taken && !also[number]
	}
	for i := range uint64(size - nodePortBand) {
		if number := manifest.FirstNodePort + nodePortBand + int32((hash(n)+i)%(size-nodePortBand)); free(number) {
			return number, nil
		}
	}
	for number := int32(manifest.FirstNodePort); number < manifest.FirstNodePort+nodePortBand; number++ {
		if free(number) {
			return number, nil
		}
	}
	return 0, fmt.Errorf("no node port from %d to %d is free", manifest.FirstNodePort, manifest.LastNodePort)
}

func hash(n name) uint64 {
	h := fnv.New32a()
	h.Write([]byte(n.String()))
	return uint64(h.Sum32())
}

// offset returns an address of a range by its number.
func offset(r netip.Prefix, n uint64) netip.Addr {
	b := r.Masked().Addr().AsSlice()
	sum := new(big.Int).Add(new(big.Int).SetBytes(b), new(big.Int).SetUint64(n))
	addr, _ := netip.AddrFromSlice(sum.FillBytes(b))
	return addr
}
