package object

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Labels by which a Service or slice is left to another proxy, or to none (features of kube-proxy's own label selector).
const (
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	labelHeadless  = corev1.IsHeadlessService
)

// annotationScheduler chooses among the backends of a Service.
const annotationScheduler = "middleway.net/scheduler"

// Bounds of sessionAffinityConfig.clientIP.timeoutSeconds, and its default (core/v1, ClientIPConfig).
const (
	maxAffinity     = 86400
	defaultAffinity = corev1.DefaultClientIPServiceAffinitySeconds
)

// FromService strips a Service. The error is that of From.
func FromService(in *corev1.Service) (*Service, error) {
	p := problems{about: "service " + in.Namespace + "/" + in.Name}
	s := &Service{
		Key:           Key{shared(in.Namespace), in.Name},
		InternalLocal: in.Spec.InternalTrafficPolicy != nil && *in.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		ExternalLocal: in.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		NotProxied:    notProxied(in.Labels),
		Scheduler:     p.scheduler(in.Annotations[annotationScheduler]),
	}
	if in.Spec.Type == corev1.ServiceTypeExternalName {
		s.ExternalName = in.Spec.ExternalName
	} else {
		p.clusterIPs(s, &in.Spec)
		for i, ip := range in.Spec.ExternalIPs {
			s.ExternalIPs = p.addr(s.ExternalIPs, fmt.Sprintf("spec.externalIPs[%d]", i), ip)
		}
	}
	for i := range in.Spec.Ports {
		p.servicePort(s, fmt.Sprintf("spec.ports[%d]", i), &in.Spec.Ports[i])
	}
	s.Affinity = p.affinity(&in.Spec)
	s.HealthPort = p.healthPort(&in.Spec)
	return s, p.err()
}

func notProxied(labels map[string]string) bool {
	_, other := labels[labelProxyName]
	_, none := labels[labelHeadless]
	return other || none
}

// scheduler returns a word that stack/service knows.
func (p *problems) scheduler(word string) string {
	switch word {
	case "", "random", "round-robin", "least-connections", "maglev":
		return shared(word)
	}
	p.add("metadata.annotations["+annotationScheduler+"]", "%q is none of random, round-robin, least-connections and maglev; it is random", word)
	return ""
}

// clusterIPs takes over the addresses: spec.clusterIPs, of which spec.clusterIP is the first.
func (p *problems) clusterIPs(s *Service, spec *corev1.ServiceSpec) {
	all, field := spec.ClusterIPs, "spec.clusterIPs[%d]"
	if len(all) == 0 && spec.ClusterIP != "" {
		all, field = []string{spec.ClusterIP}, "spec.clusterIP"
	}
	for i, a := range all {
		field := field
		if len(spec.ClusterIPs) > 0 {
			field = fmt.Sprintf(field, i)
		}
		switch a {
		case "": // none was given yet
		case corev1.ClusterIPNone:
			s.Headless = true
		default:
			p.clusterIP(s, field, a)
		}
	}
}

func (p *problems) clusterIP(s *Service, field, a string) {
	ip, ok := p.parseAddr(field, a)
	if !ok {
		return
	}
	if slices.ContainsFunc(s.ClusterIPs, func(other netip.Addr) bool { return other.Is4() == ip.Is4() }) {
		p.add(field, "%v is a second address of its family, and is left out", ip)
		return
	}
	s.ClusterIPs = append(s.ClusterIPs, ip)
}

func (p *problems) servicePort(s *Service, field string, in *corev1.ServicePort) {
	proto, known := protocol(in.Protocol)
	switch {
	case !known:
		p.add(field+".protocol", "%q is none of TCP, UDP and SCTP; the port is left out", in.Protocol)
	case in.Port < 1 || in.Port > math.MaxUint16:
		p.add(field+".port", "%d is not within 1 and 65535; the port is left out", in.Port)
	case in.NodePort < 0 || in.NodePort > math.MaxUint16:
		p.add(field+".nodePort", "%d is not within 1 and 65535; the port is left out", in.NodePort)
	default:
		s.Ports = append(s.Ports, ServicePort{shared(in.Name), proto, uint16(in.Port), uint16(in.NodePort)})
	}
}

// healthPort returns healthCheckNodePort where it means something (core/v1, ServiceSpec.healthCheckNodePort).
func (p *problems) healthPort(spec *corev1.ServiceSpec) uint16 {
	if spec.Type != corev1.ServiceTypeLoadBalancer || spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return 0
	}
	if spec.HealthCheckNodePort < 0 || spec.HealthCheckNodePort > math.MaxUint16 {
		p.add("spec.healthCheckNodePort", "%d is not within 1 and 65535; there is none", spec.HealthCheckNodePort)
		return 0
	}
	return uint16(spec.HealthCheckNodePort)
}

// protocol returns the number of a protocol's name; TCP is the default.
func protocol(name corev1.Protocol) (Protocol, bool) {
	switch name {
	case "", corev1.ProtocolTCP:
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

func (p *problems) affinity(spec *corev1.ServiceSpec) time.Duration {
	switch spec.SessionAffinity {
	case "", corev1.ServiceAffinityNone:
		return 0
	case corev1.ServiceAffinityClientIP:
	default:
		p.add("spec.sessionAffinity", "%q is none of None and ClientIP; there is none", spec.SessionAffinity)
		return 0
	}
	seconds := int32(defaultAffinity)
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	if seconds < 1 || seconds > maxAffinity {
		p.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", "%d is not within 1 and %d; it is %d", seconds, maxAffinity, defaultAffinity)
		seconds = defaultAffinity
	}
	return time.Duration(seconds) * time.Second
}
