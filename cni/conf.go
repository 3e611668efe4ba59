package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/unixsock"
)

// DefaultSocket is where the daemon listens and the plugin asks unless they are told otherwise.
const DefaultSocket = "/run/middleway/cni.sock"

// conf is the plugin's network configuration. Fields that it does not know are other people's and passed over, as the
// specification wants.
type conf struct {
	types.PluginConf
	// Socket is the daemon's. Default DefaultSocket.
	Socket string `json:"socket,omitempty"`
	// RuntimeConfig is what the runtime fills in for capabilities that the configuration declares.
	RuntimeConfig struct {
		// IPs are addresses that are asked for, with or without a prefix length (capability "ips").
		IPs []string `json:"ips,omitempty"`
		// PortMappings are ports of the node that lead to the pod (capability "portMappings").
		PortMappings []portMapping `json:"portMappings,omitempty"`
	} `json:"runtimeConfig,omitzero"`
}

func parseConf(b []byte) (*conf, error) {
	c := &conf{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fail(codeDecode, "invalid network configuration", err)
	}
	var err error
	if c.Socket, err = parseSocket(b); err != nil {
		return nil, err
	}
	if c.IPAM.Type != "" {
		return nil, fail(codeUnsupported, "unsupported field in network configuration", fmt.Sprintf("ipam.type: %q; the node daemon gives out the addresses, leave ipam out", c.IPAM.Type))
	}
	// The library would look into what is not there.
	for field, list := range c.RawPrevResult {
		if items, ok := list.([]any); ok && slices.Contains(items, nil) {
			return nil, fail(codeDecode, "invalid network configuration", fmt.Sprintf("prevResult.%s: null is none", field))
		}
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, fail(codeDecode, "invalid network configuration", fmt.Sprintf("prevResult: %v", err))
	}
	return c, nil
}

// parseSocket reads which socket is the daemon's, and nothing else of the configuration.
func parseSocket(b []byte) (string, error) {
	var c struct {
		Socket string `json:"socket"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return "", fail(codeDecode, "invalid network configuration", err)
	}
	switch {
	case c.Socket == "":
		return DefaultSocket, nil
	case !filepath.IsAbs(c.Socket) || len(c.Socket) > unixsock.MaxPath:
		return "", fail(codeConfig, "invalid network configuration", fmt.Sprintf("socket: %q is not an absolute path of at most %d bytes, such as %s", c.Socket, unixsock.MaxPath, DefaultSocket))
	}
	return c.Socket, nil
}

// previous returns prevResult in the newest form, nil if there is none.
func (c *conf) previous() (*types100.Result, error) {
	if c.PrevResult == nil {
		return nil, nil
	}
	r, err := types100.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, fail(codeDecode, "invalid network configuration", fmt.Sprintf("prevResult: %v", err))
	}
	for _, ip := range r.IPs {
		if ip.Interface != nil && (*ip.Interface < 0 || *ip.Interface >= len(r.Interfaces)) {
			return nil, fail(codeConfig, "invalid network configuration", fmt.Sprintf("prevResult: address %v is on interface %d of %d", ip.Address.IP, *ip.Interface, len(r.Interfaces)))
		}
	}
	return r, nil
}

// argNames are what we use of CNI_ARGS.
var argNames = []string{"IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "IP"}

// parseArgs reads CNI_ARGS, "A=1;B=2". What we do not use must be allowed by IgnoreUnknown, which kubelet's runtimes set.
func parseArgs(s string) (map[string]string, error) {
	args, unknown := map[string]string{}, ""
	if s == "" {
		return args, nil
	}
	for pair := range strings.SplitSeq(s, ";") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fail(codeEnvironment, "invalid CNI_ARGS", fmt.Sprintf("%q is no pair like K8S_POD_NAME=web", pair))
		}
		if !slices.Contains(argNames, k) {
			unknown = k
		}
		args[k] = v
	}
	if ignore := strings.ToLower(args["IgnoreUnknown"]); unknown != "" && ignore != "1" && ignore != "true" {
		return nil, fail(codeEnvironment, "invalid CNI_ARGS", fmt.Sprintf("%q is not known; IgnoreUnknown=1 allows it", unknown))
	}
	return args, nil
}

// attachment is what the runtime tells of one attachment, as a request of the given operation.
func attachment(op string, a *skel.CmdArgs, c *conf) (*request, error) {
	args, err := parseArgs(a.Args)
	if err != nil {
		return nil, err
	}
	r := &request{
		Op: op, Key: ipam.Key{ContainerID: a.ContainerID, IfName: a.IfName}, Network: c.Name, Netns: a.Netns,
		Pod: ipam.Pod{Namespace: args["K8S_POD_NAMESPACE"], Name: args["K8S_POD_NAME"], UID: args["K8S_POD_UID"]},
	}
	if op == opAdd {
		wanted := c.RuntimeConfig.IPs
		if args["IP"] != "" {
			wanted = append(wanted, strings.Split(args["IP"], ",")...)
		}
		for _, s := range wanted {
			ip, err := parseIP(s)
			if err != nil {
				return nil, err
			}
			r.IPs = append(r.IPs, ip)
		}
	}
	if r.PortMappings, err = parsePortMappings(c.RuntimeConfig.PortMappings); err != nil {
		return nil, err
	}
	return r, r.check()
}

// parseIP reads an address that was asked for. A prefix length is allowed by convention and says nothing.
func parseIP(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Zone() == "" {
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fail(codeAddress, "address not available", fmt.Sprintf("%q is no address like 10.244.1.7", s))
	}
	return a.Unmap(), nil
}
