package control

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// admission is a Service as it would be, with what it would take.
type admission struct {
	service *corev1.Service
	addrs   []netip.Addr
	ports   []int32 // of spec.ports, 0 for those without
}

// admitService makes a Service of a manifest: it gets addresses and node ports, those that it had where it does not name others. An error
// is what an API server would refuse of this Service; nothing is taken yet, and others may have what it names.
func (p *Plane) admitService(m *manifest.Service) (*admission, error) {
	before := get[*corev1.Service](p.state, Services, nameOf(m))
	if before != nil && p.desired[manifest.ID(m)] == nil {
		return nil, m.Errorf("metadata.name", "%s/%s is the cluster's own Service; give this one another name", m.Namespace, m.Name)
	}
	a := &admission{service: m.Service.DeepCopy()}
	a.service.ObjectMeta = ownMeta(m)
	a.service.Status = corev1.ServiceStatus{}
	if m.Spec.Type == corev1.ServiceTypeExternalName {
		return a, nil
	}
	if before != nil && before.Spec.Type == corev1.ServiceTypeExternalName {
		before = nil // it has nothing to keep
	}
	for _, step := range []func(*manifest.Service, *corev1.Service) error{
		func(m *manifest.Service, before *corev1.Service) error { return checkChange(m, before) },
		func(m *manifest.Service, before *corev1.Service) error { return p.chooseFamilies(a, m, before) },
		func(m *manifest.Service, before *corev1.Service) error { return p.chooseAddresses(a, m, before) },
		func(m *manifest.Service, before *corev1.Service) error { return p.choosePorts(a, m, before) },
	} {
		if err := step(m, before); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// checkChange refuses what does not change while a Service lives.
func checkChange(m *manifest.Service, before *corev1.Service) error {
	if before == nil {
		return nil
	}
	if was := before.Spec.ClusterIP; m.Spec.ClusterIP != "" && m.Spec.ClusterIP != was {
		return m.Errorf("spec.clusterIP", "it is %s, and stays so while the Service lives; remove the Service first", was)
	}
	if f := m.Spec.IPFamilies; len(f) > 0 && f[0] != before.Spec.IPFamilies[0] {
		return m.Errorf("spec.ipFamilies[0]", "it is %s, and stays so while the Service lives; remove the Service first", before.Spec.IPFamilies[0])
	}
	return nil
}

// chooseFamilies fills in ipFamilies and ipFamilyPolicy (initIPFamilyFields in pkg/registry/core/service/storage).
func (p *Plane) chooseFamilies(a *admission, m *manifest.Service, before *corev1.Service) error {
	spec := &a.service.Spec
	if before != nil && spec.ClusterIP == "" {
		spec.ClusterIP, spec.ClusterIPs = before.Spec.ClusterIP, before.Spec.ClusterIPs[:1]
	}
	headless := spec.ClusterIP == corev1.ClusterIPNone
	all := p.addresses.families()
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		switch {
		case before != nil && len(spec.IPFamilies) == 0 && len(m.Spec.ClusterIPs) < 2:
			policy = *before.Spec.IPFamilyPolicy
		case headless && len(spec.Selector) == 0 && len(spec.IPFamilies) == 0 && len(all) > 1,
			len(spec.IPFamilies) > 1, len(spec.ClusterIPs) > 1:
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	families := slices.Clone(spec.IPFamilies)
	for _, ip := range spec.ClusterIPs[min(len(families), len(spec.ClusterIPs)):] {
		if ip != corev1.ClusterIPNone {
			families = append(families, manifest.FamilyOf(netip.MustParseAddr(ip)))
		}
	}
	if len(families) == 0 && before != nil {
		families = append(families, before.Spec.IPFamilies[0])
	}
	if len(families) == 0 {
		families = append(families, all[0])
	}
	for i, f := range families {
		if !slices.Contains(all, f) && !headless {
			return m.Errorf(fmt.Sprintf("spec.ipFamilies[%d]", i), "the cluster has no addresses of %s for Services", f)
		}
	}
	if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(families) == 1 {
		for _, f := range all {
			if f != families[0] {
				families = append(families, f)
			}
		}
		if len(families) == 1 && *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
			return m.Errorf("spec.ipFamilyPolicy", "RequireDualStack: the cluster has addresses of %s only", families[0])
		}
	}
	spec.IPFamilies = families
	return nil
}

// chooseAddresses gives the Service an address of each of its families.
func (p *Plane) chooseAddresses(a *admission, m *manifest.Service, before *corev1.Service) error {
	spec := &a.service.Spec
	if spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	var ips []string
	for i, f := range spec.IPFamilies {
		addr, err := p.chooseAddress(m, before, i, f)
		if err != nil {
			return err
		}
		a.addrs, ips = append(a.addrs, addr), append(ips, addr.String())
	}
	spec.ClusterIP, spec.ClusterIPs = ips[0], ips
	return nil
}

func (p *Plane) chooseAddress(m *manifest.Service, before *corev1.Service, i int, f corev1.IPFamily) (netip.Addr, error) {
	if i < len(m.Spec.ClusterIPs) {
		addr := netip.MustParseAddr(m.Spec.ClusterIPs[i]) // checked
		if r, _ := p.addresses.rangeOf(f); !r.Contains(addr) || addr == r.Masked().Addr() {
			return addr, m.Errorf(addressField(i), "%s is none of the cluster's range for Services, %s; choose one there, or leave it out", addr, r)
		}
		return addr, nil
	}
	if before != nil {
		for _, ip := range before.Spec.ClusterIPs {
			if addr, err := netip.ParseAddr(ip); err == nil && manifest.FamilyOf(addr) == f {
				return addr, nil
			}
		}
	}
	addr, err := p.addresses.pick(f, nameOf(m))
	if err != nil {
		return addr, m.Errorf("spec.clusterIP", "%v", err)
	}
	return addr, nil
}

// choosePorts gives the ports of a Service with clients outside node ports: those that it names, those that they had, and else the one
// of another port of the same number, or a free one (initNodePorts in pkg/registry/core/service/storage).
func (p *Plane) choosePorts(a *admission, m *manifest.Service, before *corev1.Service) error {
	spec := &a.service.Spec
	if spec.Type != corev1.ServiceTypeNodePort && spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	allocate := spec.Type == corev1.ServiceTypeNodePort || *spec.AllocateLoadBalancerNodePorts
	taken, of := map[int32]bool{}, map[int32]int32{} // of: the node port of a port's number
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.NodePort == 0 && before != nil && allocate {
			port.NodePort = nodePortOf(before, port, spec.Ports)
		}
		if port.NodePort != 0 {
			taken[port.NodePort], of[port.Port] = true, port.NodePort
		}
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if shared := of[port.Port]; port.NodePort == 0 && allocate && !hasNodePort(spec.Ports, port.Protocol, shared) {
			port.NodePort = shared
		}
		if port.NodePort == 0 && allocate {
			number, err := p.addresses.pickPort(nameOf(m), taken)
			if err != nil {
				return m.Errorf(nodePortField(i), "%v", err)
			}
			port.NodePort = number
			taken[number], of[port.Port] = true, number
		}
		a.ports = append(a.ports, port.NodePort)
	}
	return nil
}

// checkFree refuses addresses and node ports that another Service has.
func (p *Plane) checkFree(a *admission, m *manifest.Service) error {
	for i, addr := range a.addrs {
		if other, taken := p.addresses.addrs[addr]; taken && other != nameOf(m) {
			return m.Errorf(addressField(i), "%s is the address of Service %s already; choose another one, or leave it out", addr, other)
		}
	}
	for i, n := range a.ports {
		if other, taken := p.addresses.ports[n]; taken && other != nameOf(m) {
			return m.Errorf(nodePortField(i), "%d is that of Service %s already; choose another one, or leave it out", n, other)
		}
	}
	return nil
}

// addressField is where a manifest has the address with a number.
func addressField(i int) string {
	if i == 0 {
		return "spec.clusterIP"
	}
	return fmt.Sprintf("spec.clusterIPs[%d]", i)
}

func nodePortField(i int) string { return fmt.Sprintf("spec.ports[%d].nodePort", i) }

// nodePortOf returns the node port that a port of a Service had, 0 where another one of its protocol names it now.
func nodePortOf(s *corev1.Service, port *corev1.ServicePort, now []corev1.ServicePort) int32 {
	for _, had := range s.Spec.Ports {
		if had.Protocol == port.Protocol && had.Port == port.Port {
			if hasNodePort(now, had.Protocol, had.NodePort) {
				return 0
			}
			return had.NodePort
		}
	}
	return 0
}

func hasNodePort(ports []corev1.ServicePort, protocol corev1.Protocol, number int32) bool {
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.Protocol == protocol && p.NodePort == number })
}
