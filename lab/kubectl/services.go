package kubectl

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/middleway-net/middleway/lab/control"
)

var serviceColumns = []column{
	{name: "NAME"}, {name: "TYPE"}, {name: "CLUSTER-IP"}, {name: "EXTERNAL-IP"}, {name: "PORT(S)"}, {name: "AGE"}, {"SELECTOR", true},
}

func serviceCells(o control.Object, at clock) []string {
	s := o.(*corev1.Service)
	clusterIP := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		clusterIP = s.Spec.ClusterIPs[0]
	}
	var ports []string
	for _, p := range s.Spec.Ports {
		number := strconv.Itoa(int(p.Port))
		if p.NodePort > 0 {
			number += ":" + strconv.Itoa(int(p.NodePort))
		}
		ports = append(ports, number+"/"+string(p.Protocol))
	}
	return []string{
		s.Name, string(s.Spec.Type), clusterIP, externalIP(s), orNone(strings.Join(ports, ",")), at.age(s.CreationTimestamp),
		labels.FormatLabels(s.Spec.Selector),
	}
}

// externalIP is where a Service is reached from outside, or for ExternalName what it stands for.
func externalIP(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		addrs := s.Spec.ExternalIPs
		if ingress := loadBalancerAddresses(s); ingress != "" {
			addrs = append([]string{ingress}, addrs...)
		}
		return cmp.Or(strings.Join(addrs, ","), "<pending>")
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return orNone(strings.Join(s.Spec.ExternalIPs, ","))
	}
	return "<unknown>"
}

// loadBalancerAddresses are what a load balancer has told, sorted.
func loadBalancerAddresses(s *corev1.Service) string {
	var addrs []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a := cmp.Or(in.IP, in.Hostname); a != "" {
			addrs = append(addrs, a)
		}
	}
	slices.Sort(addrs)
	return strings.Join(slices.Compact(addrs), ",")
}

var endpointSliceColumns = []column{{name: "NAME"}, {name: "ADDRESSTYPE"}, {name: "PORTS"}, {name: "ENDPOINTS"}, {name: "AGE"}}

func endpointSliceCells(o control.Object, at clock) []string {
	s := o.(*discoveryv1.EndpointSlice)
	var ports, addrs []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			ports = append(ports, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			ports = append(ports, *p.Name)
		default:
			ports = append(ports, "*")
		}
	}
	for _, e := range s.Endpoints {
		addrs = append(addrs, e.Addresses...)
	}
	return []string{s.Name, string(s.AddressType), firstThree(ports), firstThree(addrs), at.age(s.CreationTimestamp)}
}

// firstThree lists the first three of some words.
func firstThree(words []string) string {
	const shown = 3
	switch {
	case len(words) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(words[:shown], ","), len(words)-shown)
	case strings.Join(words, ",") == "":
		return "<unset>"
	}
	return strings.Join(words, ",")
}
