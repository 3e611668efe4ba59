package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// IP protocol numbers.
const (
	icmp = 1
	tcp  = 6
	udp  = 17
	sctp = 132
)

var protocols = map[string]uint8{"icmp": icmp, "ping": icmp, "tcp": tcp, "udp": udp, "sctp": sctp}

// target is what a person has named: a host, and a port of it.
type target struct {
	host string // an address, or a name
	port string // a number, or the name of a Service's port; "" for none
}

// parseTarget reads HOST, HOST:PORT, or an IPv6 address with or without brackets.
func parseTarget(s string) (target, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Zone() == "" {
		return target{host: a.Unmap().String()}, nil
	}
	if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Zone() == "" {
		return target{a.Addr().Unmap().String(), strconv.Itoa(int(a.Port()))}, nil
	}
	host, port, found := strings.Cut(s, ":")
	if host == "" || found && port == "" || strings.ContainsAny(host+port, ": []%") {
		return target{}, fmt.Errorf("%q: want an address, a Service or a pod, with a port behind a colon where one is meant, as in web:80 or [fd00:10:96::7]:80", s)
	}
	return target{host, port}, nil
}

// end is a protocol and a port.
type end struct {
	proto uint8
	port  uint16
}

// endOf chooses protocol and port: what is said, and for the rest what the Service has, if it is one. Without a port it is a ping.
func endOf(port, proto string, service *corev1.Service) (end, error) {
	wanted, known := protocols[strings.ToLower(proto)]
	if proto != "" && !known {
		return end{}, fmt.Errorf("--proto %q: want tcp, udp, sctp or icmp", proto)
	}
	if wanted == icmp {
		if port != "" {
			return end{}, errors.New("--proto icmp: a ping has no port; leave it out")
		}
		return end{proto: icmp}, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if port != "" && err == nil && number == 0 {
		return end{}, errors.New("port 0: want 1 to 65535")
	}
	if p := portOf(service, port, uint16(number), wanted); p != nil {
		return end{protocolOf(p), uint16(p.Port)}, nil
	}
	switch {
	case port != "" && err != nil:
		return end{}, noSuchPort(port, service)
	case port == "" && wanted == 0:
		return end{proto: icmp}, nil
	case port == "":
		return end{}, fmt.Errorf("--proto %s wants a port, as in web:80", proto)
	}
	return end{cmp.Or(wanted, tcp), uint16(number)}, nil
}

// portOf returns the Service's port that is meant: by number, by name, or without both its first one.
func portOf(service *corev1.Service, port string, number uint16, proto uint8) *corev1.ServicePort {
	if service == nil {
		return nil
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		named := port == "" || p.Name == port || number != 0 && uint16(p.Port) == number
		return named && (proto == 0 || protocolOf(&p) == proto)
	})
	if i < 0 {
		return nil
	}
	return &service.Spec.Ports[i]
}

func protocolOf(p *corev1.ServicePort) uint8 {
	return cmp.Or(protocols[strings.ToLower(string(p.Protocol))], tcp)
}

func noSuchPort(port string, service *corev1.Service) error {
	if service == nil {
		return fmt.Errorf("port %q: want 1 to 65535; only Services have ports with names", port)
	}
	var have []string
	for _, p := range service.Spec.Ports {
		have = append(have, strings.TrimPrefix(fmt.Sprintf("%s (%d)", p.Name, p.Port), " "))
	}
	return fmt.Errorf("port %q: Service %s has %s", port, service.Name, cmp.Or(strings.Join(have, ", "), "no ports"))
}

// namespaced is the name of an object.
type namespaced struct{ namespace, name string }

// serviceName returns the Service that a name would mean for a pod of a namespace: web, web.shop, web.shop.svc or all of it; none for what
// can be no Service's name.
func serviceName(name, namespace, domain string) namespaced {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(name), "."), "."+domain)
	name = strings.TrimSuffix(name, ".svc")
	if service, ns, found := strings.Cut(name, "."); found {
		name, namespace = service, ns
	}
	if strings.ContainsAny(name+namespace, "./") {
		return namespaced{}
	}
	return namespaced{namespace, name}
}
