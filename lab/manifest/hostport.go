package manifest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// HostPort is a port of a node that a pod wants for one of its own.
type HostPort struct {
	Field    string // for example spec.containers[0].ports[1].hostPort
	HostIP   string // as it is written; "" for all addresses of the node
	Protocol corev1.Protocol
	Port     int32
	To       int32 // the container's
}

// Conflicts reports whether one node cannot have both: one address is among all of them, as in Kubernetes' scheduler (HostPortInfo).
func (h *HostPort) Conflicts(with *HostPort) bool {
	a, one := h.addr()
	b, another := with.addr()
	return h.Protocol == with.Protocol && h.Port == with.Port && (!one || !another || a == b)
}

// addr returns the one address at which the port is; false if it is at all, of one family or both.
func (h *HostPort) addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(h.HostIP)
	return a, err == nil && !a.IsUnspecified()
}

// HostPorts returns which ports of its node the pod wants. With hostNetwork these are those of its containers (SetDefaults_Pod in
// pkg/apis/core/v1/defaults.go).
func (p *Pod) HostPorts() (all []HostPort) {
	for _, list := range []struct {
		field      string
		containers []corev1.Container
	}{{"initContainers", p.Spec.InitContainers}, {"containers", p.Spec.Containers}} {
		for i := range list.containers {
			c := &list.containers[i]
			if list.field == "initContainers" && !IsSidecar(c) {
				continue
			}
			for k, port := range c.Ports {
				at := fmt.Sprintf("spec.%s[%d].ports[%d].", list.field, i, k)
				switch {
				case port.HostPort != 0:
					all = append(all, HostPort{at + "hostPort", port.HostIP, port.Protocol, port.HostPort, port.ContainerPort})
				case p.Spec.HostNetwork:
					all = append(all, HostPort{at + "containerPort", port.HostIP, port.Protocol, port.ContainerPort, port.ContainerPort})
				}
			}
		}
	}
	return all
}

// checkHostPort checks what a port of a container says of its node.
func (p *Pod) checkHostPort(at string, port *corev1.ContainerPort) error {
	switch a, err := netip.ParseAddr(port.HostIP); {
	case port.HostPort == 0:
		return nil
	case validation.IsValidPortNum(int(port.HostPort)) != nil:
		return p.Errorf(at+".hostPort", "%d is no port; want 1 to 65535", port.HostPort)
	case p.Spec.HostNetwork && port.HostPort != port.ContainerPort:
		return p.Errorf(at+".hostPort", "with hostNetwork it is containerPort, which is %d", port.ContainerPort)
	case port.HostIP != "" && (err != nil || a.Zone() != "" || a.Is4In6()):
		return p.Errorf(at+".hostIP", "%q is no IP address; leave it out for all addresses of the node", port.HostIP)
	}
	return nil
}

// checkHostPorts refuses a pod that no node could have by itself.
func (p *Pod) checkHostPorts() error {
	all := p.HostPorts()
	for i := range all {
		for k := range all[:i] {
			if a, b := &all[i], &all[k]; a.Conflicts(b) {
				return p.Errorf(a.Field, "%s %d is that of %s already; choose another one", a.Protocol, a.Port, b.Field)
			}
		}
	}
	return nil
}

// warnOfHostPorts tells of host ports that nobody listens at.
func (s *Set) warnOfHostPorts(p *Pod) {
	for _, h := range p.HostPorts() {
		if at := join(p.within, h.Field); h.Protocol == corev1.ProtocolSCTP && !p.Spec.HostNetwork {
			s.warn("hostPort protocol", "%s, line %d: %s of SCTP: %s", p.File, p.lines[at], at, noSCTP)
		}
	}
}
