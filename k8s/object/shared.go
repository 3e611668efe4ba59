package object

import "sync"

// names holds one copy of each string that many objects share: names of nodes, zones, namespaces and ports, of which a cluster
// has few. Each object is decoded by itself, and 100,000 endpoints would otherwise hold 100,000 copies.
var names = struct {
	mu  sync.Mutex
	all map[string]string
}{all: map[string]string{}}

// maxNames bounds the copies: a cluster that goes through more begins anew.
const maxNames = 1 << 16

// shared returns the copy of s that all objects share.
func shared(s string) string {
	if s == "" {
		return ""
	}
	names.mu.Lock()
	defer names.mu.Unlock()
	if one, ok := names.all[s]; ok {
		return one
	}
	if len(names.all) == maxNames {
		clear(names.all)
	}
	names.all[s] = s
	return s
}

// Share has an object that was decoded by itself, and that nobody else has yet, share its strings as those do that From made.
func Share(o Object) {
	switch o := o.(type) {
	case *Node:
		o.Name, o.Zone = shared(o.Name), shared(o.Zone)
	case *Pod:
		o.Namespace, o.Node = shared(o.Namespace), shared(o.Node)
	case *Service:
		o.Namespace, o.Scheduler = shared(o.Namespace), shared(o.Scheduler)
		for i := range o.Ports {
			o.Ports[i].Name = shared(o.Ports[i].Name)
		}
	case *EndpointSlice:
		o.share()
	}
}

func (s *EndpointSlice) share() {
	s.Namespace = shared(s.Namespace)
	for i := range s.Ports {
		s.Ports[i].Name = shared(s.Ports[i].Name)
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Node = shared(e.Node)
		for _, list := range [][]string{e.HintedZones(), e.HintedNodes()} {
			for k := range list {
				list[k] = shared(list[k])
			}
		}
	}
}
