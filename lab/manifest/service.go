package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// What is otherwise with clients outside.
const (
	noBalancer = "no load balancer gives it an address; clients outside reach it at its node ports"
	noSCTP     = "clients outside are served over TCP and UDP"
)

// serviceFields are those of a Service.
var serviceFields = metadataFields(map[string]treatment{
	"spec": honoured, "status": ignored(byServer),

	"spec.type": honoured, "spec.selector": honoured, "spec.externalName": honoured, "spec.publishNotReadyAddresses": honoured,
	"spec.clusterIP": honoured, "spec.clusterIPs": honoured, "spec.ipFamilies": honoured, "spec.ipFamilyPolicy": honoured,
	"spec.ports": honoured, "spec.ports.name": honoured, "spec.ports.protocol": honoured, "spec.ports.port": honoured,
	"spec.ports.targetPort": honoured, "spec.ports.appProtocol": honoured,
	"spec.sessionAffinity": honoured, "spec.sessionAffinityConfig": honoured, "spec.sessionAffinityConfig.clientIP": honoured,
	"spec.sessionAffinityConfig.clientIP.timeoutSeconds": honoured,
	"spec.internalTrafficPolicy":                         honoured, "spec.trafficDistribution": honoured,

	"spec.ports.nodePort": honoured, "spec.externalTrafficPolicy": honoured, "spec.externalIPs": honoured,
	"spec.allocateLoadBalancerNodePorts": honoured,

	// What is about load balancers is told of once, with the type.
	"spec.healthCheckNodePort": ignored("load balancers ask there"), "spec.loadBalancerIP": ignored("there is no load balancer"),
	"spec.loadBalancerSourceRanges": ignored("there is no load balancer"), "spec.loadBalancerClass": ignored("there is no load balancer"),
})

// DefaultAffinity is how long a client stays with its backend where a Service says nothing else, in seconds (core/v1).
const DefaultAffinity = corev1.DefaultClientIPServiceAffinitySeconds

// setDefaults fills in what Kubernetes does (SetDefaults_Service in pkg/apis/core/v1/defaults.go).
func (s *Service) setDefaults() {
	spec := &s.Spec
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP && affinityTimeout(spec) == nil {
		timeout := int32(DefaultAffinity)
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if external(spec.Type) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && spec.Type != corev1.ServiceTypeExternalName {
		cluster := corev1.ServiceInternalTrafficPolicyCluster
		spec.InternalTrafficPolicy = &cluster
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		yes := true
		spec.AllocateLoadBalancerNodePorts = &yes
	}
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

// external reports whether a type has clients outside.
func external(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
}

func affinityTimeout(spec *corev1.ServiceSpec) *int32 {
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		return c.ClientIP.TimeoutSeconds
	}
	return nil
}

// warnOfOutside tells what clients outside find otherwise.
func (s *Set) warnOfOutside(svc *Service) {
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		s.warn("Service type", "%s, line %d: type %s: %s", svc.File, svc.lines["spec.type"], svc.Spec.Type, noBalancer)
	}
	for i, p := range svc.Spec.Ports {
		if at := fmt.Sprintf("spec.ports[%d].protocol", i); p.Protocol == corev1.ProtocolSCTP && svc.reachedFromOutside() {
			s.warn("Service protocol", "%s, line %d: %s of SCTP: %s", svc.File, svc.lines[at], at, noSCTP)
		}
	}
}

// reachedFromOutside reports whether a Service has clients outside (ExternallyAccessible in pkg/api/service).
func (s *Service) reachedFromOutside() bool {
	return external(s.Spec.Type) || s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

// check follows ValidateServiceCreate of pkg/apis/core/validation of Kubernetes 1.37, where names may begin with a digit (KEP-5311).
func (s *Service) check() error {
	for _, check := range []func() error{
		func() error { return checkMetadata(s, validation.IsDNS1123Label, labelWords) },
		s.checkType, s.checkPorts, s.checkAddresses, s.checkExternalIPs, s.checkPolicies,
		func() error { return checkLabels(s, "spec.selector", s.Spec.Selector) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkType() error {
	spec := &s.Spec
	types := []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}
	if !slices.Contains(types, spec.Type) {
		return s.Errorf("spec.type", "%q is none; want ClusterIP, NodePort, LoadBalancer or ExternalName", spec.Type)
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		return nil
	}
	name := strings.TrimSuffix(spec.ExternalName, ".")
	switch {
	case name == "":
		return s.Errorf("spec.externalName", "type ExternalName wants the name that it stands for, for example db.example.org")
	case validation.IsDNS1123Subdomain(name) != nil:
		return s.Errorf("spec.externalName", "%q is no name; take %s and dots, for example db.example.org", spec.ExternalName, labelLetters)
	case len(spec.ClusterIPs) > 0:
		return s.Errorf("spec.clusterIP", "type ExternalName has no address; remove it")
	case len(spec.IPFamilies) > 0:
		return s.Errorf("spec.ipFamilies", "type ExternalName has no address; remove it")
	case spec.IPFamilyPolicy != nil:
		return s.Errorf("spec.ipFamilyPolicy", "type ExternalName has no address; remove it")
	}
	return nil
}

// Headless reports whether a Service has no address of its own by its manifest's will.
func (s *Service) Headless() bool {
	return len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

var protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}

func (s *Service) checkPorts() error {
	ports := s.Spec.Ports
	if len(ports) == 0 && !s.Headless() && s.Spec.Type != corev1.ServiceTypeExternalName {
		return s.Errorf("spec.ports", "a Service needs at least one port, unless its clusterIP is None")
	}
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	names, numbers, nodePorts := map[string]int{}, map[number]int{}, map[number]int{}
	for i := range ports {
		p, at := &ports[i], fmt.Sprintf("spec.ports[%d]", i)
		if err := s.checkPort(at, p); err != nil {
			return err
		}
		if p.Name == "" && len(ports) > 1 {
			return s.Errorf(at+".name", "several ports need names, for example http")
		}
		if other, taken := names[p.Name]; taken {
			return s.Errorf(at+".name", "%q is the name of ports[%d] already; choose another one", p.Name, other)
		}
		if other, taken := numbers[number{p.Protocol, p.Port}]; taken {
			return s.Errorf(at+".port", "%s %d is ports[%d] already", p.Protocol, p.Port, other)
		}
		if other, taken := nodePorts[number{p.Protocol, p.NodePort}]; taken && p.NodePort != 0 {
			return s.Errorf(at+".nodePort", "%s %d is that of ports[%d] already", p.Protocol, p.NodePort, other)
		}
		names[p.Name], numbers[number{p.Protocol, p.Port}], nodePorts[number{p.Protocol, p.NodePort}] = i, i, i
	}
	return nil
}

// The range of node ports is Kubernetes' default (--service-node-port-range).
const (
	FirstNodePort = 30000
	LastNodePort  = 32767
)

func (s *Service) checkPort(at string, p *corev1.ServicePort) error {
	switch {
	case p.Name != "" && validation.IsDNS1123Label(p.Name) != nil:
		return s.Errorf(at+".name", "%q is no name for a port; take at most 63 %s, for example http", p.Name, labelLetters)
	case validation.IsValidPortNum(int(p.Port)) != nil:
		return s.Errorf(at+".port", "%d is no port; want 1 to 65535", p.Port)
	case !slices.Contains(protocols, p.Protocol):
		return s.Errorf(at+".protocol", "%q is none; want TCP, UDP or SCTP", p.Protocol)
	case p.TargetPort.Type == intstr.Int && validation.IsValidPortNum(p.TargetPort.IntValue()) != nil:
		return s.Errorf(at+".targetPort", "%d is no port; want 1 to 65535, or the name of one of the pods' ports", p.TargetPort.IntValue())
	case p.TargetPort.Type == intstr.String && validation.IsValidPortName(p.TargetPort.StrVal) != nil:
		return s.Errorf(at+".targetPort", "%q is no name for a port; take at most 15 %s, a letter among them, for example http", p.TargetPort.StrVal, labelLetters)
	case p.AppProtocol != nil && validation.IsQualifiedName(*p.AppProtocol) != nil:
		return s.Errorf(at+".appProtocol", "%q is no name of a protocol; take for example http or example.org/mine", *p.AppProtocol)
	case p.NodePort != 0 && !external(s.Spec.Type):
		return s.Errorf(at+".nodePort", "type %s has none; remove it, or take type: NodePort", s.Spec.Type)
	case p.NodePort != 0 && (p.NodePort < FirstNodePort || p.NodePort > LastNodePort):
		return s.Errorf(at+".nodePort", "%d is no node port; want %d to %d", p.NodePort, FirstNodePort, LastNodePort)
	}
	return nil
}

// maxAffinity is the longest timeout of session affinity in seconds, a day (core/v1).
const maxAffinity = 86400

func (s *Service) checkPolicies() error {
	spec := &s.Spec
	timeout := affinityTimeout(spec)
	switch {
	case spec.SessionAffinity != corev1.ServiceAffinityNone && spec.SessionAffinity != corev1.ServiceAffinityClientIP:
		return s.Errorf("spec.sessionAffinity", "%q is none; want None or ClientIP", spec.SessionAffinity)
	case spec.SessionAffinity == corev1.ServiceAffinityNone && spec.SessionAffinityConfig != nil:
		return s.Errorf("spec.sessionAffinityConfig", "it is about sessionAffinity: ClientIP; remove it")
	case timeout != nil && (*timeout < 1 || *timeout > maxAffinity):
		return s.Errorf("spec.sessionAffinityConfig.clientIP.timeoutSeconds", "%d: want 1 to %d", *timeout, maxAffinity)
	}
	internal := []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}
	if p := spec.InternalTrafficPolicy; p != nil && !slices.Contains(internal, *p) {
		return s.Errorf("spec.internalTrafficPolicy", "%q is none; want Cluster or Local", *p)
	}
	fromOutside := []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal}
	switch {
	case !s.reachedFromOutside() && spec.ExternalTrafficPolicy != "":
		return s.Errorf("spec.externalTrafficPolicy", "type %s has no clients outside; remove it", spec.Type)
	case spec.ExternalTrafficPolicy != "" && !slices.Contains(fromOutside, spec.ExternalTrafficPolicy):
		return s.Errorf("spec.externalTrafficPolicy", "%q is none; want Cluster or Local", spec.ExternalTrafficPolicy)
	case spec.AllocateLoadBalancerNodePorts != nil && spec.Type != corev1.ServiceTypeLoadBalancer:
		return s.Errorf("spec.allocateLoadBalancerNodePorts", "it is about type LoadBalancer; remove it")
	case len(spec.LoadBalancerSourceRanges) > 0 && spec.Type != corev1.ServiceTypeLoadBalancer:
		return s.Errorf("spec.loadBalancerSourceRanges", "it is about type LoadBalancer; remove it")
	case spec.LoadBalancerClass != nil && spec.Type != corev1.ServiceTypeLoadBalancer:
		return s.Errorf("spec.loadBalancerClass", "it is about type LoadBalancer; remove it")
	}
	near := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
	if d := spec.TrafficDistribution; d != nil && !slices.Contains(near, *d) {
		return s.Errorf("spec.trafficDistribution", "%q is none; want %s", *d, strings.Join(near, ", "))
	}
	mode, hints := s.Annotations[corev1.AnnotationTopologyMode], s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if mode != "" && hints != "" && mode != hints {
		return s.Errorf("metadata.annotations", "%s is %q and %s is %q; keep one of them", corev1.AnnotationTopologyMode, mode, corev1.DeprecatedAnnotationTopologyAwareHints, hints)
	}
	return nil
}
