package manifest

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// endpointSliceFields are those of an EndpointSlice.
var endpointSliceFields = metadataFields(map[string]treatment{
	"addressType": honoured,
	"endpoints":   honoured, "endpoints.addresses": honoured, "endpoints.hostname": honoured, "endpoints.nodeName": honoured, "endpoints.zone": honoured,
	"endpoints.conditions": honoured, "endpoints.conditions.ready": honoured, "endpoints.conditions.serving": honoured, "endpoints.conditions.terminating": honoured,
	"endpoints.hints": honoured, "endpoints.hints.forZones": honoured, "endpoints.hints.forZones.name": honoured,
	"endpoints.hints.forNodes": honoured, "endpoints.hints.forNodes.name": honoured,
	"endpoints.targetRef":          ignored("an endpoint of a person's own hand has none"),
	"endpoints.deprecatedTopology": ignored("nothing reads it any more"),
	"ports":                        honoured, "ports.name": honoured, "ports.protocol": honoured, "ports.port": honoured, "ports.appProtocol": honoured,
})

// Bounds of a slice (pkg/apis/discovery/validation).
const (
	maxEndpoints         = 1000
	maxEndpointAddresses = 100
	maxEndpointPorts     = 20000
)

// setDefaults fills in what Kubernetes does (pkg/apis/discovery/v1/defaults.go).
func (e *EndpointSlice) setDefaults() {
	for i := range e.Ports {
		p := &e.Ports[i]
		if p.Name == nil {
			p.Name = new(string)
		}
		if p.Protocol == nil {
			tcp := corev1.ProtocolTCP
			p.Protocol = &tcp
		}
	}
}

// warnOfService tells of a slice that is nobody's.
func (s *Set) warnOfService(e *EndpointSlice) {
	if e.Labels[discoveryv1.LabelServiceName] == "" {
		s.warn(ID(e), "%s, line %d: the endpoints are for no Service; the label %s names it", e.File, e.line, discoveryv1.LabelServiceName)
	}
}

// check follows ValidateEndpointSliceCreate of pkg/apis/discovery/validation.
func (e *EndpointSlice) check() error {
	if err := checkMetadata(e, validation.IsDNS1123Subdomain, subdomainWords); err != nil {
		return err
	}
	types := []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN}
	if !slices.Contains(types, e.AddressType) {
		return e.Errorf("addressType", "%q is none; want IPv4, IPv6 or FQDN", e.AddressType)
	}
	switch {
	case len(e.Endpoints) > maxEndpoints:
		return e.Errorf("endpoints", "%d are more than %d; write several slices", len(e.Endpoints), maxEndpoints)
	case len(e.Ports) > maxEndpointPorts:
		return e.Errorf("ports", "%d are more than %d", len(e.Ports), maxEndpointPorts)
	}
	if err := e.checkPorts(); err != nil {
		return err
	}
	for i := range e.Endpoints {
		if err := e.checkEndpoint(fmt.Sprintf("endpoints[%d]", i), &e.Endpoints[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *EndpointSlice) checkPorts() error {
	names := map[string]int{}
	for i, p := range e.Ports {
		at := fmt.Sprintf("ports[%d]", i)
		switch {
		case *p.Name != "" && validation.IsDNS1123Label(*p.Name) != nil:
			return e.Errorf(at+".name", "%q is no name for a port; take at most 63 %s, for example http", *p.Name, labelLetters)
		case !slices.Contains(protocols, *p.Protocol):
			return e.Errorf(at+".protocol", "%q is none; want TCP, UDP or SCTP", *p.Protocol)
		case p.Port != nil && validation.IsValidPortNum(int(*p.Port)) != nil:
			return e.Errorf(at+".port", "%d is no port; want 1 to 65535", *p.Port)
		case p.AppProtocol != nil && validation.IsQualifiedName(*p.AppProtocol) != nil:
			return e.Errorf(at+".appProtocol", "%q is no name of a protocol; take for example http or example.org/mine", *p.AppProtocol)
		}
		if other, taken := names[*p.Name]; taken {
			return e.Errorf(at+".name", "%q is the name of ports[%d] already; choose another one", *p.Name, other)
		}
		names[*p.Name] = i
	}
	return nil
}

func (e *EndpointSlice) checkEndpoint(at string, p *discoveryv1.Endpoint) error {
	switch {
	case len(p.Addresses) == 0:
		return e.Errorf(at+".addresses", "an endpoint has at least one address")
	case len(p.Addresses) > maxEndpointAddresses:
		return e.Errorf(at+".addresses", "%d are more than %d; write several endpoints", len(p.Addresses), maxEndpointAddresses)
	case p.Hostname != nil && validation.IsDNS1123Label(*p.Hostname) != nil:
		return e.Errorf(at+".hostname", "%q is no name for a host; take at most 63 %s, for example web-1", *p.Hostname, labelLetters)
	case p.NodeName != nil && validation.IsDNS1123Subdomain(*p.NodeName) != nil:
		return e.Errorf(at+".nodeName", "%q is no name for a node, which is one like node-1", *p.NodeName)
	}
	for i, address := range p.Addresses {
		if err := e.checkAddress(fmt.Sprintf("%s.addresses[%d]", at, i), address); err != nil {
			return err
		}
	}
	return nil
}

// checkAddress refuses what cannot be a backend (ValidateEndpointIP of pkg/apis/core/validation).
func (e *EndpointSlice) checkAddress(at, address string) error {
	if e.AddressType == discoveryv1.AddressTypeFQDN {
		if validation.IsDNS1123Subdomain(address) != nil {
			return e.Errorf(at, "%q is no name; take %s and dots, for example db.example.org", address, labelLetters)
		}
		return nil
	}
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6():
		return e.Errorf(at, "%q is no IP address", address)
	case string(FamilyOf(a)) != string(e.AddressType):
		return e.Errorf(at, "%s is of %s, and addressType is %s", address, FamilyOf(a), e.AddressType)
	case a.IsUnspecified(), a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast():
		return e.Errorf(at, "%s cannot be reached from another machine; want an address that can", address)
	}
	return nil
}
