package node

import (
	"context"
	"encoding/json"
	"os"

	"github.com/middleway-net/middleway/node/fdstore"
	"github.com/middleway-net/middleway/proxy"
)

// keeper has the sockets of listeners kept by a store of descriptors, which outlives this daemon.
type keeper struct{ *fdstore.Client }

var _ proxy.Keeper = (*keeper)(nil)

// openKeeper takes what a daemon left that was killed, beside what one has handed over that has ended.
func (n *Node) openKeeper(ctx context.Context) error {
	if n.config.FDStore == "" {
		return nil
	}
	client, left := fdstore.Open(ctx, n.config.FDStore, n.log)
	n.keeper = &keeper{client}
	for name, fd := range left {
		left := proxy.Left{Socket: os.NewFile(uintptr(fd), name)}
		err := json.Unmarshal([]byte(name), &left.Listener)
		if err != nil || nameOf(left.Listener) != name {
			n.log.Warn("what a former daemon left is of another version", "name", name, "err", err)
			_ = left.Socket.Close()
			client.Drop(name)
			continue
		}
		n.heritage = append(n.heritage, left)
	}
	return nil
}

// Keep implements [proxy.Keeper].
func (k *keeper) Keep(l proxy.Listener, socket int) error { return k.Client.Keep(nameOf(l), socket) }

// Drop implements [proxy.Keeper].
func (k *keeper) Drop(l proxy.Listener) { k.Client.Drop(nameOf(l)) }

// nameOf returns the name by which a listener's socket is kept. It is the same whether the listener is silent or not, which may change.
func nameOf(l proxy.Listener) string {
	l.Silent = false
	b, _ := json.Marshal(l) // a struct of addresses and numbers
	return string(b)
}
