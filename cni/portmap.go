package cni

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/middleway-net/middleway/cni/ipam"
)

// portMapping is an entry of runtimeConfig.portMappings as the CNI conventions have it (capability "portMappings").
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// parsePortMappings reads what a runtime says. An entry that is there twice is one.
func parsePortMappings(entries []portMapping) (mappings []ipam.PortMapping, err error) {
	for _, e := range entries {
		m, err := e.parse()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(mappings, m) {
			mappings = append(mappings, m)
		}
	}
	return mappings, nil
}

func (e portMapping) parse() (m ipam.PortMapping, err error) {
	for _, port := range []struct {
		field  string
		number int
	}{{"hostPort", e.HostPort}, {"containerPort", e.ContainerPort}} {
		if port.number < 1 || port.number > math.MaxUint16 {
			return m, invalidMapping(fmt.Sprintf("%s: %d is no port from 1 to %d", port.field, port.number, math.MaxUint16))
		}
	}
	m = ipam.PortMapping{HostPort: uint16(e.HostPort), ContainerPort: uint16(e.ContainerPort), Protocol: ipam.Protocol(strings.ToLower(e.Protocol))}
	switch m.Protocol {
	case ipam.TCP, ipam.UDP:
	case "":
		m.Protocol = ipam.TCP // as in Kubernetes
	default:
		return m, fail(codeUnsupported, "unsupported field in network configuration",
			fmt.Sprintf("runtimeConfig.portMappings.protocol: %q; host ports are of tcp or udp, leave out the hostPort %d", e.Protocol, e.HostPort))
	}
	if e.HostIP == "" {
		return m, nil
	}
	if m.HostIP, err = netip.ParseAddr(e.HostIP); err != nil {
		return m, invalidMapping(fmt.Sprintf("hostIP: %q is no address like 192.0.2.1", e.HostIP))
	}
	m.HostIP = m.HostIP.Unmap()
	return m, nil
}

func invalidMapping(details string) error {
	return fail(codeConfig, "invalid network configuration", "runtimeConfig.portMappings: "+details)
}
