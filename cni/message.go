package cni

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/unixsock"
)

// A message between plugin and daemon is a header and a JSON object; descriptors travel beside its first byte.
//
//	 0       1       2       3       4                               8
//	+-------+-------+-------+-------+-------------------------------+---------------
//	|  'm'  |  'w'  |  'c'  |version|  length of the object, bytes  |  object …
//	+-------+-------+-------+-------+-------------------------------+---------------
const (
	headerLen = 8
	// version is that of the protocol. Plugin and daemon must speak the same: they are installed together.
	protocolVersion = 1
	// maxMessage bounds a message in bytes: a GC names every attachment of the node, about 120 bytes each.
	maxMessage = 1 << 20
)

// errVersion tells that the other side speaks another version of the protocol.
var errVersion = errors.New("plugin and daemon are of different releases; install both from one")

// Operations of a request.
const (
	opAdd    = "add"    // ①
	opDevice = "device" // ③, with the device's queues
	opDone   = "done"   // ⑤
	opDel    = "del"
	opCheck  = "check"
	opGC     = "gc"
	opStatus = "status"
)

// request is what the plugin says.
type request struct {
	Op string `json:"op"`
	ipam.Key
	Network string       `json:"network,omitempty"`
	Netns   string       `json:"netns,omitempty"`
	NetnsID netns.ID     `json:"netnsID,omitzero"`
	Pod     ipam.Pod     `json:"pod,omitzero"`
	IPs     []netip.Addr `json:"ips,omitempty"`   // opAdd: addresses that are asked for
	Index   int          `json:"index,omitempty"` // opDevice: the interface's number
	Valid   []ipam.Key   `json:"valid,omitempty"` // opGC: what shall stay

	PortMappings []ipam.PortMapping `json:"portMappings,omitempty"` // opAdd: which are asked for; opCheck: which were
}

// response is what the daemon answers. With an error there is nothing else in it.
type response struct {
	Error *types.Error `json:"error,omitempty"`
	grant
}

// grant is what an interface gets.
type grant struct {
	Addrs       []netip.Addr `json:"addrs,omitempty"`
	Gateways    []netip.Addr `json:"gateways,omitempty"`
	MTU         int          `json:"mtu,omitempty"`         // bytes
	Queues      int          `json:"queues,omitempty"`      // of the device
	Portable    bool         `json:"portable,omitempty"`    // a device for the portable back end
	MaxSegments int          `json:"maxSegments,omitempty"` // of a super-packet, 0: the kernel's bound
}

// encode returns a message with its header.
func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("message of %d bytes is longer than %d", len(body), maxMessage)
	}
	b := append(make([]byte, 0, headerLen+len(body)), 'm', 'w', 'c', protocolVersion)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...), nil
}

// bodyLen reads a header, headerLen bytes.
func bodyLen(header []byte) (int, error) {
	if string(header[:3]) != "mwc" {
		return 0, errors.New("the other side does not speak this protocol; is the socket another program's?")
	}
	if header[3] != protocolVersion {
		return 0, fmt.Errorf("protocol version %d, want %d: %w", header[3], protocolVersion, errVersion)
	}
	n := binary.BigEndian.Uint32(header[4:])
	if n > maxMessage {
		return 0, fmt.Errorf("message of %d bytes is longer than %d", n, maxMessage)
	}
	return int(n), nil
}

// decode reads an object into v: nothing that v does not know, and nothing behind it.
func decode(body []byte, v any) error {
	if err := unixsock.Decode(body, v); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// Bounds of what a request holds, in bytes. A container's name becomes part of an interface's alias, which the kernel
// bounds to 255 bytes; names of pods are DNS names.
const (
	maxContainerID = 200
	maxPodField    = 253
	maxNetnsPath   = 4096
)

// check refuses a request that no honest plugin sends.
func (r *request) check() error {
	switch r.Op {
	case opDevice, opDone, opStatus:
		return nil
	case opGC:
		return checkNetwork(r.Network)
	case opAdd, opDel, opCheck:
	default:
		return fail(codeDecode, "invalid request", fmt.Sprintf("operation %q is not known", r.Op))
	}
	if err := checkKey(r.Key); err != nil {
		return err
	}
	if r.Op == opDel {
		return nil
	}
	if err := checkPod(r.Pod); err != nil {
		return err
	}
	if !filepath.IsAbs(r.Netns) || len(r.Netns) > maxNetnsPath {
		return fail(codeNetns, "invalid CNI_NETNS", fmt.Sprintf("%q is not the absolute path of a network namespace", r.Netns))
	}
	if err := ipam.CheckPortMappings(r.PortMappings); err != nil {
		return fail(codeConfig, "invalid network configuration", fmt.Sprintf("runtimeConfig.portMappings: %v", err))
	}
	return checkNetwork(r.Network)
}

func checkNetwork(name string) error {
	if err := utils.ValidateNetworkName(name); err != nil {
		return err
	}
	return nil
}

// checkKey refuses names that the kernel would refuse or understand otherwise.
func checkKey(k ipam.Key) error {
	if len(k.ContainerID) > maxContainerID {
		return fail(codeEnvironment, "invalid CNI_CONTAINERID", fmt.Sprintf("it is longer than %d bytes", maxContainerID))
	}
	if err := utils.ValidateContainerID(k.ContainerID); err != nil {
		return fail(codeEnvironment, "invalid CNI_CONTAINERID", err)
	}
	if err := utils.ValidateInterfaceName(k.IfName); err != nil {
		return fail(codeEnvironment, "invalid CNI_IFNAME", err)
	}
	if strings.ContainsFunc(k.IfName, func(r rune) bool { return r == '%' || !unicode.IsPrint(r) }) || k.IfName == "lo" {
		return fail(codeEnvironment, "invalid CNI_IFNAME", fmt.Sprintf("%q is no name for a pod's interface; eth0 is usual", k.IfName))
	}
	return nil
}

func checkPod(p ipam.Pod) error {
	for name, v := range map[string]string{"K8S_POD_NAMESPACE": p.Namespace, "K8S_POD_NAME": p.Name, "K8S_POD_UID": p.UID} {
		if len(v) > maxPodField || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			return fail(codeEnvironment, "invalid CNI_ARGS", fmt.Sprintf("%s is longer than %d bytes or not printable", name, maxPodField))
		}
	}
	return nil
}

// alias is what stands on a device of a container, by which we know it again.
func alias(containerID string) string { return "middleway " + containerID }
