package dns

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"unique"
)

// Service is what one Kubernetes Service puts into a Zone.
type Service struct {
	Namespace, Name string
	// ClusterIPs are what its name means; of a headless one and an ExternalName there are none.
	ClusterIPs []netip.Addr
	// Ports are those of the ClusterIPs.
	Ports []Port
	// Headless: its name means its endpoints.
	Headless bool
	// ExternalName is the name that it stands for; "" if it stands for itself.
	ExternalName string
	// Endpoints are those that are ready, in the sets that share their ports.
	Endpoints []Endpoints
}

// Port is a port of a Service or of endpoints.
type Port struct {
	Name   string // "" if it has none
	Proto  string // "tcp", "udp" or "sctp"
	Number uint16
}

// Endpoints are endpoints that share their ports, as those of an EndpointSlice do.
type Endpoints struct {
	Ports []Port
	Each  []Endpoint
}

// Endpoint is one of a Service's endpoints.
type Endpoint struct {
	Addr     netip.Addr
	Hostname string // "" if it has none: then its address is its name
}

// service is a Service as queries find it.
type service struct {
	key      string // name and namespace as labels of a name in wire format
	v4       [][4]byte
	v6       [][16]byte // both: what its name means
	ports    []port     // of v4 and v6, unless it is headless
	sets     []set
	headless bool
	external string // in wire format; "" if there is none
}

// port is a port whose name and protocol are labels in wire format: _http._tcp. A port without name has none.
type port struct {
	labels string
	number uint16
}

// proto returns the last of the labels.
func (p port) proto() string {
	if p.labels == "" {
		return ""
	}
	return p.labels[1+p.labels[0]:]
}

// set is a set of endpoints of one family that share their ports.
type set struct {
	ports []port // of a headless Service
	v4    [][4]byte
	v6    [][16]byte
	hosts []string // names of the endpoints; nil if none has one
}

func (s *set) len() int { return len(s.v4) + len(s.v6) }

// host returns the name of endpoint i, or "".
func (s *set) host(i int) string {
	if s.hosts == nil {
		return ""
	}
	return s.hosts[i]
}

// appendLabel appends the name of endpoint i as a label in wire format.
func (s *set) appendLabel(b []byte, i int) []byte {
	b = append(b, 0)
	at := len(b)
	switch {
	case s.host(i) != "":
		b = append(b, s.host(i)...)
	case s.v4 != nil:
		b = appendDashed(b, netip.AddrFrom4(s.v4[i]))
	default:
		b = appendDashed(b, netip.AddrFrom16(s.v6[i]))
	}
	b[at-1] = byte(len(b) - at)
	return b
}

// appendDashed appends an address with dashes in place of dots and colons.
func appendDashed(b []byte, a netip.Addr) []byte {
	at := len(b)
	b = a.AppendTo(b)
	for i := at; i < len(b); i++ {
		if b[i] == '.' || b[i] == ':' {
			b[i] = '-'
		}
	}
	return b
}

// compile makes the form that queries find. A Service that leads nowhere is nil: its name does not exist.
func (s *Service) compile() (*service, error) {
	key, err := labelsOf(s.Name, s.Namespace)
	if err != nil {
		return nil, fmt.Errorf("service %s/%s: %w", s.Namespace, s.Name, err)
	}
	c := &service{key: key, headless: s.Headless}
	switch {
	case s.ExternalName != "":
		if c.external, err = toWire(s.ExternalName); err != nil {
			return nil, fmt.Errorf("service %s/%s: externalName: %w", s.Namespace, s.Name, err)
		}
		return c, nil
	case !s.Headless:
		c.v4, c.v6 = families(s.ClusterIPs)
		c.ports = compilePorts(s.Ports)
	}
	c.sets = compileSets(s.Endpoints, s.Headless)
	if s.Headless {
		c.gather()
	}
	if c.v4 == nil && c.v6 == nil {
		return nil, nil
	}
	return c, nil
}

// gather collects the endpoints' addresses, each once.
func (s *service) gather() {
	for _, set := range s.sets {
		s.v4 = append(s.v4, set.v4...)
		s.v6 = append(s.v6, set.v6...)
	}
	slices.SortFunc(s.v4, func(a, b [4]byte) int { return slices.Compare(a[:], b[:]) })
	slices.SortFunc(s.v6, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	s.v4, s.v6 = slices.Clip(slices.Compact(s.v4)), slices.Clip(slices.Compact(s.v6))
}

func families(addrs []netip.Addr) (v4 [][4]byte, v6 [][16]byte) {
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a.As4())
		} else {
			v6 = append(v6, a.As16())
		}
	}
	return v4, v6
}

// compilePorts leaves out what is no name of a port: nobody can ask for it.
func compilePorts(ports []Port) (compiled []port) {
	compiled = make([]port, 0, len(ports))
	for _, p := range ports {
		labels := ""
		if p.Name != "" {
			labels, _ = labelsOf("_"+p.Name, "_"+p.Proto)
			labels = unique.Make(labels).Value() // thousands of Services have the same few
		}
		compiled = append(compiled, port{labels, p.Number})
	}
	return compiled
}

// compileSets makes one set a family of each of the endpoints' sets. Two of them may have the same endpoint, as it happens while a controller
// moves it from one slice to the other; whoever answers sees to it that it is there once. The ports of endpoints are asked for where the Service
// is headless.
func compileSets(all []Endpoints, withPorts bool) (sets []set) {
	for _, e := range all {
		var ports []port
		if withPorts {
			ports = compilePorts(e.Ports)
		}
		for _, is4 := range []bool{true, false} {
			if s := oneFamily(e.Each, is4); s.len() > 0 {
				s.ports = ports
				sets = append(sets, s)
			}
		}
	}
	return sets
}

func oneFamily(each []Endpoint, is4 bool) (s set) {
	named := false
	for _, e := range each {
		if !e.Addr.IsValid() || e.Addr.Is4() != is4 {
			continue
		}
		if is4 {
			s.v4 = append(s.v4, e.Addr.As4())
		} else {
			s.v6 = append(s.v6, e.Addr.As16())
		}
		host := hostLabel(e.Hostname)
		s.hosts, named = append(s.hosts, host), named || host != ""
	}
	s.v4, s.v6, s.hosts = slices.Clip(s.v4), slices.Clip(s.v6), slices.Clip(s.hosts)
	if !named {
		s.hosts = nil
	}
	return s
}

// hostLabel returns a host name as it stands in a label; "" if it is none.
func hostLabel(host string) string {
	if host == "" {
		return ""
	}
	label, err := labelsOf(host)
	if err != nil {
		return ""
	}
	return label[1:]
}

// allAddrs calls f for each address under which the Service is found in reverse, each once.
func (s *service) allAddrs(f func([16]byte)) {
	var all [][16]byte
	add := func(v4 [][4]byte, v6 [][16]byte) {
		for _, a := range v4 {
			all = append(all, netip.AddrFrom4(a).As16())
		}
		all = append(all, v6...)
	}
	add(s.v4, s.v6)
	for i := range s.sets {
		add(s.sets[i].v4, s.sets[i].v6)
	}
	slices.SortFunc(all, func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	for _, a := range slices.Compact(all) {
		f(a)
	}
}

// hasAddr reports whether it is one of the addresses that the Service's name means.
func (s *service) hasAddr(a netip.Addr) bool {
	if a.Is4() {
		return slices.Contains(s.v4, a.As4())
	}
	return slices.Contains(s.v6, a.As16())
}

// named yields the addresses of the endpoints whose name the label is. One that several sets have comes several times.
func (s *service) named(label []byte) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		byAddr, dashed := parseDashed(label)
		for i := range s.sets {
			set := &s.sets[i]
			if set.hosts == nil {
				if dashed && set.has(byAddr) && !yield(byAddr) {
					return
				}
				continue
			}
			for k, host := range set.hosts {
				a := set.addr(k)
				if (host == string(label) || host == "" && dashed && a == byAddr) && !yield(a) {
					return
				}
			}
		}
	}
}

// addr returns the address of endpoint i.
func (s *set) addr(i int) netip.Addr {
	if s.v4 != nil {
		return netip.AddrFrom4(s.v4[i])
	}
	return netip.AddrFrom16(s.v6[i])
}

// has reports whether an endpoint has the address.
func (s *set) has(a netip.Addr) bool {
	if a.Is4() {
		return slices.Contains(s.v4, a.As4())
	}
	return slices.Contains(s.v6, a.As16())
}
