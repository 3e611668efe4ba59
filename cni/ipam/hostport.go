package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// ErrHostPort says that a port of the node that was asked for cannot be given.
var ErrHostPort = errors.New("host port not available")

// Protocol is a transport protocol by the name that the CNI conventions give it.
type Protocol string

// Protocols that have host ports.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// PortMapping publishes a port of a lease's interface as a port of the node (CNI conventions, capability portMappings).
type PortMapping struct {
	// HostIP is the node's address that has the port. The zero Addr stands for all of them, 0.0.0.0 and :: for those of a family.
	HostIP   netip.Addr `json:"hostIP,omitzero"`
	HostPort uint16     `json:"hostPort"`
	// ContainerPort is where the interface's addresses serve it.
	ContainerPort uint16   `json:"containerPort"`
	Protocol      Protocol `json:"protocol"`
}

// String returns the node's side of a mapping as messages show it: 8080/tcp, or 192.0.2.1:8080/tcp with an address.
func (m PortMapping) String() string {
	port := strconv.Itoa(int(m.HostPort))
	if m.HostIP.IsValid() {
		port = netip.AddrPortFrom(m.HostIP, m.HostPort).String()
	}
	return port + "/" + string(m.Protocol)
}

// overlaps reports whether two mappings want the same port of the same address.
func (m PortMapping) overlaps(o PortMapping) bool {
	return m.HostPort == o.HostPort && m.Protocol == o.Protocol && (m.HostIP == o.HostIP || m.covers(o.HostIP) || o.covers(m.HostIP))
}

// covers reports whether a mapping of several addresses has a among them.
func (m PortMapping) covers(a netip.Addr) bool {
	return !m.HostIP.IsValid() || m.HostIP.IsUnspecified() && m.HostIP.Is4() == a.Is4()
}

// CheckPortMappings refuses mappings that no listener could serve, or of which one takes the other's port.
func CheckPortMappings(mappings []PortMapping) error {
	for i, m := range mappings {
		if err := m.check(); err != nil {
			return fmt.Errorf("host port %v: %w", m, err)
		}
		for _, former := range mappings[:i] {
			if m.overlaps(former) {
				return fmt.Errorf("host port %v is asked for twice, for container ports %d and %d", m, former.ContainerPort, m.ContainerPort)
			}
		}
	}
	return nil
}

func (m PortMapping) check() error {
	switch {
	case m.HostPort == 0 || m.ContainerPort == 0:
		return fmt.Errorf("container port %d: ports are from 1 to 65535", m.ContainerPort)
	case m.Protocol != TCP && m.Protocol != UDP:
		return fmt.Errorf("protocol %q is neither tcp nor udp", m.Protocol)
	case m.HostIP.Is4In6() || m.HostIP.Zone() != "" || m.HostIP.IsMulticast():
		return fmt.Errorf("%v is no address that a node has for itself, such as 192.0.2.1", m.HostIP)
	}
	return nil
}

// hostPortsLocked returns an ErrHostPort where another lease has one of l's host ports, or l has no address of its family.
func (s *Store) hostPortsLocked(l Lease) error {
	for _, m := range l.PortMappings {
		if m.HostIP.IsValid() && !slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.Is4() == m.HostIP.Is4() }) {
			return fmt.Errorf("%w: %v needs a pod address of its family, and this node's podCIDRs have none", ErrHostPort, m)
		}
		if other, theirs, ok := s.takesLocked(l.Pod, m); ok {
			return fmt.Errorf("%w: %v belongs to pod %s (%v); delete that pod, or choose another port or node", ErrHostPort, m, other.Name(), theirs)
		}
	}
	return nil
}

// takesLocked returns which lease of another pod has a mapping that overlaps m. One of the same pod is that of a former sandbox, which
// a runtime may have lost.
func (s *Store) takesLocked(p Pod, m PortMapping) (other Lease, theirs PortMapping, ok bool) {
	for _, l := range s.leases {
		if p.UID != "" && l.Pod == p {
			continue
		}
		for _, o := range l.PortMappings {
			if m.overlaps(o) {
				return l, o, true
			}
		}
	}
	return Lease{}, PortMapping{}, false
}

// SamePortMappings reports whether two lists hold the same mappings, in whatever order.
func SamePortMappings(a, b []PortMapping) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(m PortMapping) bool { return !slices.Contains(b, m) })
}
