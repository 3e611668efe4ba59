package node

import (
	"net/netip"

	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// side is a network namespace in which this node listens.
type side struct {
	here       bool // it is the daemon's own, and another one is the outside
	interfaces []underlay.Interface
	fronts     []netip.Addr // where NodePorts are
}

// listeners returns the listeners that a table's External frontends need, each with the name of the port that it serves. One whose
// address the host lacks is left out, unless a pod asked for it: an externalIP is no matter of every node.
func listeners(t *service.Table, sides []side) map[proxy.Listener]string {
	all := listenerSet{}
	for f, p := range t.External() {
		if f.Addr.IsUnspecified() {
			all.add(f, p, sides)
		}
	}
	for f, p := range t.External() { // one address is more than all
		if !f.Addr.IsUnspecified() {
			all.addAt(f, p, sides)
		}
	}
	wanted := make(map[proxy.Listener]string, len(all))
	for l, who := range all {
		l.Silent = who.silent
		wanted[l] = who.name
	}
	return wanted
}

// listenerSet has what listeners serve, by listeners that do not tell whether they are silent.
type listenerSet map[proxy.Listener]served

type served struct {
	name   string
	silent bool
}

// add adds the listeners of a frontend at all of the node's addresses.
func (s listenerSet) add(f service.Frontend, p *service.Port, sides []side) {
	for _, side := range sides {
		for _, a := range side.fronts {
			if a.Is4() == f.Addr.Is4() {
				s.set(a, f, p, side.here)
			}
		}
	}
}

// addAt adds those of a frontend at one address, on the sides that have it. One that a pod asked for and no side has is added where the
// outside is, which tells why it is not there.
func (s listenerSet) addAt(f service.Frontend, p *service.Port, sides []side) {
	found := false
	for _, side := range sides {
		if len(ownOf([]netip.Addr{f.Addr}, side.interfaces)) > 0 {
			s.set(f.Addr, f, p, side.here)
			found = true
		}
	}
	if _, pod := podOf(p.Name); pod && !found {
		s.set(f.Addr, f, p, false)
	}
}

// set adds a listener at an address, or takes away the one that is there: nothing listens where no backend is anywhere, so that the host
// refuses.
func (s listenerSet) set(a netip.Addr, f service.Frontend, p *service.Port, here bool) {
	if f.Proto != packet.TCP && f.Proto != packet.UDP {
		return // no socket carries it
	}
	l := proxy.Listener{Addr: netip.AddrPortFrom(a, f.Port), Proto: f.Proto, Here: here}
	choice := &p.External
	if a.IsLoopback() { // whose clients are on this node
		choice = &p.Inside
	}
	switch {
	case len(choice.Backends) > 0:
		s[l] = served{name: p.Name}
	case choice.None == packet.DropNoLocalBackend:
		s[l] = served{p.Name, true}
	default:
		delete(s, l)
	}
}
