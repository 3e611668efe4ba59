package services

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// endpoint is one at a port.
type endpoint struct {
	*object.Endpoint
	at service.Backend
}

// gather returns the endpoints of all slices at a Service's port, which slices know by name and protocol, in the family of an
// address. Each address and port comes once: of two, that which is not terminating, as a new pod may have the address of one
// that ends; else the first. They are in the order of their addresses, so that equal sets are equal lists.
func gather(slices []*object.EndpointSlice, p *object.ServicePort, family netip.Addr, on Node) []endpoint {
	all := make([]endpoint, 0, count(slices))
	for _, s := range slices {
		if s.NotProxied {
			continue
		}
		for i := range s.Ports {
			if s.Ports[i].Name != p.Name || s.Ports[i].Protocol != p.Protocol {
				continue
			}
			for k := range s.Endpoints {
				if e := &s.Endpoints[k]; e.Addr.Is4() == family.Is4() {
					all = append(all, endpoint{e, service.Backend{
						Addr: packet.KeyOf(e.Addr), Port: s.Ports[i].Port, Local: e.Node != "" && e.Node == on.Name,
					}})
				}
			}
		}
	}
	return unique(all)
}

func count(slices []*object.EndpointSlice) (n int) {
	for _, s := range slices {
		n += len(s.Endpoints)
	}
	return n
}

// unique sorts endpoints by address and port, and leaves one of each.
func unique(all []endpoint) []endpoint {
	slices.SortStableFunc(all, func(a, b endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.at.Port, b.at.Port), terminatingLast(a, b))
	})
	return slices.CompactFunc(all, func(a, b endpoint) bool { return a.Addr == b.Addr && a.at.Port == b.at.Port })
}

func terminatingLast(a, b endpoint) int {
	switch {
	case a.Terminating == b.Terminating:
		return 0
	case b.Terminating:
		return -1
	}
	return 1
}

// pick returns the backends of endpoints. Where like has the same, it is returned in their place: most ports have one list.
func pick(all []endpoint, like []service.Backend, want func(*endpoint) bool) []service.Backend {
	n, same := 0, true
	for i := range all {
		if want(&all[i]) {
			same = same && n < len(like) && like[n] == all[i].at
			n++
		}
	}
	switch {
	case n == 0:
		return nil
	case same && n == len(like):
		return like
	}
	list := make([]service.Backend, 0, n)
	for i := range all {
		if want(&all[i]) {
			list = append(list, all[i].at)
		}
	}
	return list
}
