package kubectl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// forwardedPort is a port here and the pod's port that it leads to. It is printed as kubectl prints it.
type forwardedPort struct {
	Local, Remote uint16 // Local 0: any that is free
}

// wantedPort is a port as a person writes it: REMOTE, LOCAL:REMOTE or :REMOTE, where REMOTE may be a name.
type wantedPort struct {
	local  uint16
	same   bool // no LOCAL was given: it is REMOTE, as a number
	remote intstr.IntOrString
}

func parsePorts(args []string) (ports []wantedPort, err error) {
	for _, arg := range args {
		p, err := parsePort(arg)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func parsePort(arg string) (p wantedPort, err error) {
	local, remote, both := strings.Cut(arg, ":")
	if !both {
		local, remote, p.same = "", arg, true
	}
	if strings.Contains(remote, ":") {
		return p, fmt.Errorf("invalid port format '%s'; want LOCAL:REMOTE, as in 8080:80", arg)
	}
	if local != "" {
		n, err := strconv.ParseUint(local, 10, 16)
		if err != nil {
			return p, fmt.Errorf("error parsing local port '%s': want a number up to 65535", local)
		}
		p.local = uint16(n)
	}
	p.remote = intstr.Parse(remote)
	switch {
	case remote == "":
		return p, errors.New("remote port cannot be empty")
	case p.remote.Type == intstr.String:
		return p, nil
	case p.remote.IntVal <= 0 || p.remote.IntVal > 65535:
		return p, fmt.Errorf("error parsing remote port '%s': want a number from 1 to 65535, or a port's name", remote)
	}
	return p, nil
}

// forwarded returns the pair of which remote and number are the two sides: the pod's port, and the one that was asked for.
func (p wantedPort) forwarded(remote, number int32) forwardedPort {
	local := p.local
	if p.same {
		local = uint16(number)
	}
	return forwardedPort{local, uint16(remote)}
}

// portsOfPod finds ports of a pod.
func portsOfPod(pod *corev1.Pod, wanted []wantedPort) (ports []forwardedPort, err error) {
	for _, w := range wanted {
		number := w.remote.IntVal
		if w.remote.Type == intstr.String {
			if number, err = containerPort(pod, w.remote.StrVal); err != nil {
				return nil, err
			}
		}
		if onlyUDP(containerPorts(pod), func(p corev1.ContainerPort) (int32, corev1.Protocol) { return p.ContainerPort, p.Protocol }, number) {
			return nil, noUDP(w.remote)
		}
		ports = append(ports, w.forwarded(number, number))
	}
	return ports, nil
}

// portsOfService finds ports of a Service, and where the pod serves them.
func portsOfService(s *corev1.Service, pod *corev1.Pod, wanted []wantedPort) (ports []forwardedPort, err error) {
	for _, w := range wanted {
		i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return w.remote.Type == intstr.String && p.Name == w.remote.StrVal || w.remote.Type == intstr.Int && p.Port == w.remote.IntVal && p.Protocol != corev1.ProtocolUDP
		})
		switch {
		case i >= 0 && s.Spec.Ports[i].Protocol == corev1.ProtocolUDP,
			i < 0 && onlyUDP(s.Spec.Ports, func(p corev1.ServicePort) (int32, corev1.Protocol) { return p.Port, p.Protocol }, w.remote.IntVal):
			return nil, noUDP(w.remote)
		case i < 0 && w.remote.Type == intstr.String:
			//lint:ignore ST1005 as kubectl says it
			return nil, fmt.Errorf("Service '%s' does not have a named port '%s'", s.Name, w.remote.StrVal)
		case i < 0:
			//lint:ignore ST1005 as kubectl says it
			return nil, fmt.Errorf("Service %s does not have a service port %d", s.Name, w.remote.IntVal)
		}
		at := &s.Spec.Ports[i]
		target, err := targetPort(s, pod, at)
		if err != nil {
			return nil, err
		}
		ports = append(ports, w.forwarded(target, at.Port))
	}
	return ports, nil
}

// targetPort returns the number of the port at which a pod serves a Service's.
func targetPort(s *corev1.Service, pod *corev1.Pod, at *corev1.ServicePort) (int32, error) {
	switch {
	case s.Spec.ClusterIP == corev1.ClusterIPNone, at.TargetPort == intstr.IntOrString{}:
		return at.Port, nil
	case at.TargetPort.Type == intstr.String:
		return containerPort(pod, at.TargetPort.StrVal)
	}
	return at.TargetPort.IntVal, nil
}

func containerPort(pod *corev1.Pod, name string) (int32, error) {
	for _, p := range containerPorts(pod) {
		if p.Name == name {
			return p.ContainerPort, nil
		}
	}
	//lint:ignore ST1005 as kubectl says it
	return 0, fmt.Errorf("Pod '%s' does not have a named port '%s'", pod.Name, name)
}

func containerPorts(pod *corev1.Pod) (ports []corev1.ContainerPort) {
	for i := range pod.Spec.Containers {
		ports = append(ports, pod.Spec.Containers[i].Ports...)
	}
	return ports
}

// onlyUDP reports whether those of the ports that have a number are of UDP, as far as there are any.
func onlyUDP[P any](ports []P, of func(P) (int32, corev1.Protocol), number int32) bool {
	udp := false
	for _, p := range ports {
		switch n, protocol := of(p); {
		case n != number:
		case protocol == corev1.ProtocolUDP:
			udp = true
		default:
			return false
		}
	}
	return udp
}

func noUDP(port intstr.IntOrString) error {
	return fmt.Errorf("UDP protocol is not supported for %s", port.String())
}

// listenAddr is an address to listen on. Of the localhost ones one is enough.
type listenAddr struct {
	host      netip.Addr
	localhost bool
}

func parseAddresses(words []string) (addrs []listenAddr, err error) {
	if len(words) == 0 {
		return nil, errors.New("you must specify at least 1 address")
	}
	for _, word := range words {
		hosts := []listenAddr{{netip.AddrFrom4([4]byte{127, 0, 0, 1}), true}, {netip.IPv6Loopback(), true}}
		if word != "localhost" {
			a, err := netip.ParseAddr(word)
			if err != nil {
				return nil, fmt.Errorf("%s is not a valid IP; want an address of this machine, or localhost", word)
			}
			hosts = []listenAddr{{host: a.Unmap()}}
		}
		for _, h := range hosts {
			if !slices.ContainsFunc(addrs, func(a listenAddr) bool { return a.host == h.host }) {
				addrs = append(addrs, h)
			}
		}
	}
	return addrs, nil
}
