package manifest

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// checkAddresses checks clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy in themselves and against each other
// (ValidateServiceClusterIPsRelatedFields of pkg/apis/core/validation).
func (s *Service) checkAddresses() error {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	ips, families := s.Spec.ClusterIPs, s.Spec.IPFamilies
	switch {
	case len(ips) > 0 && s.Spec.ClusterIP == "":
		return s.Errorf("spec.clusterIPs", "clusterIP is missing; write the first of them there too")
	case len(ips) > 0 && ips[0] != s.Spec.ClusterIP:
		return s.Errorf("spec.clusterIPs[0]", "%q is not clusterIP, which is %q; the first one is", ips[0], s.Spec.ClusterIP)
	case len(ips) > 2:
		return s.Errorf("spec.clusterIPs", "there are %d; want one, or one of IPv4 and one of IPv6", len(ips))
	case s.Headless() && len(ips) > 1:
		return s.Errorf("spec.clusterIPs", "None stands alone")
	case s.Headless() && external(s.Spec.Type):
		return s.Errorf("spec.clusterIP", "type %s has an address; it cannot be None", s.Spec.Type)
	}
	if err := s.checkFamilies(); err != nil || s.Headless() {
		return err
	}
	var seen []corev1.IPFamily
	for i, ip := range ips {
		at := fmt.Sprintf("spec.clusterIPs[%d]", i)
		if i == 0 && s.lines[at] == 0 {
			at = "spec.clusterIP"
		}
		a, err := netip.ParseAddr(ip)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return s.Errorf(at, "%q is no IP address; leave it out for one of the cluster's range, or write None for a headless Service", ip)
		}
		family := FamilyOf(a)
		if slices.Contains(seen, family) {
			return s.Errorf(at, "%s is of %s too; want one of each family", ip, family)
		}
		if i < len(families) && families[i] != family {
			return s.Errorf(at, "%s is of %s, and ipFamilies[%d] says %s", ip, family, i, families[i])
		}
		seen = append(seen, family)
	}
	return nil
}

// checkExternalIPs refuses addresses that no client outside sends to (ValidateNonSpecialIP in pkg/apis/core/validation).
func (s *Service) checkExternalIPs() error {
	for i, ip := range s.Spec.ExternalIPs {
		at := fmt.Sprintf("spec.externalIPs[%d]", i)
		a, err := netip.ParseAddr(ip)
		switch {
		case err != nil || a.Zone() != "" || a.Is4In6():
			return s.Errorf(at, "%q is no IP address", ip)
		case !a.IsGlobalUnicast():
			return s.Errorf(at, "no client outside sends to %s; want an address of which your network leads to a node", ip)
		}
	}
	return nil
}

// FamilyOf returns an address's family in the API's word.
func FamilyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func (s *Service) checkFamilies() error {
	for i, f := range s.Spec.IPFamilies {
		at := fmt.Sprintf("spec.ipFamilies[%d]", i)
		switch {
		case f != corev1.IPv4Protocol && f != corev1.IPv6Protocol:
			return s.Errorf(at, "%q is none; want IPv4 or IPv6", f)
		case slices.Contains(s.Spec.IPFamilies[:i], f):
			return s.Errorf(at, "%s is there twice", f)
		}
	}
	policies := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack}
	policy := s.Spec.IPFamilyPolicy
	if policy != nil && !slices.Contains(policies, *policy) {
		return s.Errorf("spec.ipFamilyPolicy", "%q is none; want SingleStack, PreferDualStack or RequireDualStack", *policy)
	}
	if policy != nil && *policy == corev1.IPFamilyPolicySingleStack && max(len(s.Spec.IPFamilies), len(s.Spec.ClusterIPs)) > 1 {
		return s.Errorf("spec.ipFamilyPolicy", "SingleStack is of one family, and the Service names two")
	}
	return nil
}
