package proxy

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"github.com/middleway-net/middleway/stack/packet"
)

// recentClients bounds the clients of a listener that are remembered.
const recentClients = 1 << 12

// clients are those who asked a listener lately. Two namespaces have clients of the same address and port, 127.0.0.1 above all, and an
// answer has to go to the one who asked. It is nil where nobody has to be told apart; one that has not asked for long gives way to another.
type clients [recentClients]atomic.Uint64

// clientSeed makes it hard to guess which clients have the same place.
var clientSeed = rand.Uint64()

func (c *clients) at(client netip.AddrPort) (*atomic.Uint64, uint64) {
	f := packet.NewFlow(packet.UDP, client, netip.AddrPort{})
	hash := f.Hash(clientSeed) | 1
	return &c[hash>>1%recentClients], hash
}

func (c *clients) has(client netip.AddrPort) bool {
	if c == nil {
		return false
	}
	at, hash := c.at(client)
	return at.Load() == hash
}

func (c *clients) add(client netip.AddrPort) {
	if at, hash := c.at(client); at.Load() != hash {
		at.Store(hash)
	}
}

func (c *clients) remove(client netip.AddrPort) {
	at, hash := c.at(client)
	at.CompareAndSwap(hash, 0)
}
