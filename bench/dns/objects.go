package dns

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// objects are those of a cluster.
type objects struct {
	namespaces []corev1.Namespace
	services   []corev1.Service
	slices     []discoveryv1.EndpointSlice
}

// newObjects makes n Services of ten endpoints each, in ten namespaces; every tenth is headless with named endpoints. Four are ExternalNames.
func newObjects(n int) (o objects) {
	for i := range 10 {
		o.namespaces = append(o.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("team-", i)}})
	}
	for i := range n {
		ip := fmt.Sprintf("10.96.%d.%d", 1+i/250, 1+i%250)
		if i%10 == 0 {
			ip = corev1.ClusterIPNone
		}
		o.services = append(o.services, corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("team-", i/10%10), Name: fmt.Sprint("service-", i)},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
				Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
			},
		})
		o.slices = append(o.slices, sliceOf(i, &o.services[i]))
	}
	for alias, target := range map[string]string{
		"inner": "service-11.team-1.svc.cluster.local", "outside": "www-1.example.com", "gone": "gone.example.com", "dangling": "nothing.team-0.svc.cluster.local",
	} {
		o.services = append(o.services, corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team-0", Name: alias}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: target},
		})
	}
	return o
}

func sliceOf(i int, s *corev1.Service) discoveryv1.EndpointSlice {
	yes, name, port, tcp := true, "http", int32(8080), corev1.ProtocolTCP
	slice := discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
	for k := range 10 {
		e := discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.244.%d.%d", 2+i/25, 1+10*(i%25)+k)},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		}
		if s.Spec.ClusterIP == corev1.ClusterIPNone {
			host := fmt.Sprint("member-", k)
			e.Hostname = &host
		}
		slice.Endpoints = append(slice.Endpoints, e)
	}
	return slice
}

// path is the search path of a pod in team-0.
var path = []string{"team-0.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", ""}

// mix are n lookups as pods of team-0 make them, each of which asks for A and AAAA until a name exists: of ten, five are of another team's Service
// ("service-11.team-1"), three of an own one by its short name, and two of names outside of the cluster.
func mix(n int) (questions []string) {
	ask := func(names ...string) {
		for _, name := range names {
			questions = append(questions, name+" A", name+" AAAA")
		}
	}
	for i := range n {
		switch k := i % 1000; {
		case i%10 < 5:
			name := fmt.Sprintf("service-%d.team-%d.", k, k/10%10)
			ask(name+path[0], name+path[1])
		case i%10 < 8:
			ask(fmt.Sprintf("service-%d.", k/100*100+k%10) + path[0])
		default:
			name := fmt.Sprintf("www-%d.example.com.", k%20)
			for _, domain := range path {
				ask(name + domain)
			}
		}
	}
	return questions
}
