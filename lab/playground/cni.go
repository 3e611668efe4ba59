package playground

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// network is a node's, as a container runtime has it: a configuration, and the plugin that it names.
type network struct {
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

// newNetwork describes the network of the node with a run directory. The plugin is this program, found by the plugin's name.
func newNetwork(dir *directory, runDir string) (*network, error) {
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "middleway",
		"plugins": []map[string]any{{
			"type": pluginName, "socket": filepath.Join(runDir, "cni.sock"), "capabilities": map[string]bool{portMappings: true},
		}},
	})
	if err != nil {
		return nil, err
	}
	list, err := libcni.NetworkConfFromBytes(conf)
	if err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	plugins := dir.join(pluginDir)
	return &network{libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(plugins, "cache"), nil), list}, nil
}

// portMappings is the capability of host ports (CNI's CONVENTIONS.md).
const portMappings = "portMappings"

// runtimeConf is what a runtime tells the plugin of a pod.
func runtimeConf(p *Pod) *libcni.RuntimeConf {
	c := &libcni.RuntimeConf{
		ContainerID: p.uid, NetNS: p.ns.Path(), IfName: "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.manifest.Namespace}, {"K8S_POD_NAME", p.manifest.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", p.uid}, {"K8S_POD_UID", p.uid},
		},
	}
	if mappings := mapped(p.manifest); len(mappings) > 0 {
		c.CapabilityArgs = map[string]any{portMappings: mappings}
	}
	return c
}

// mapped returns a pod's host ports as runtimes tell them. Those of SCTP, of which a manifest's warning says that nobody serves them,
// are left out: the plugin would refuse the pod.
func mapped(p *manifest.Pod) (all []map[string]any) {
	for _, h := range p.HostPorts() {
		if h.Protocol == corev1.ProtocolSCTP {
			continue
		}
		m := map[string]any{"hostPort": h.Port, "containerPort": h.To, "protocol": strings.ToLower(string(h.Protocol))}
		if h.HostIP != "" {
			m["hostIP"] = h.HostIP
		}
		all = append(all, m)
	}
	return all
}

// add attaches a pod and returns its addresses. After a failure, as the specification has it ("Lifecycle & Ordering"), the plugin is
// called to take back what it may have done.
func (n *network) add(ctx context.Context, p *Pod) ([]netip.Addr, error) {
	addrs, err := n.attach(ctx, p)
	if err == nil {
		return addrs, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachWait)
	defer cancel()
	if errDel := n.del(ctx, p); errDel != nil {
		err = fmt.Errorf("%w; and it was not taken back: %w", err, errDel)
	}
	return nil, err
}

func (n *network) attach(ctx context.Context, p *Pod) ([]netip.Addr, error) {
	r, err := n.cni.AddNetworkList(ctx, n.list, runtimeConf(p))
	if err != nil {
		return nil, err
	}
	result, err := types100.GetResult(r)
	if err != nil {
		return nil, fmt.Errorf("result of %s: %w", pluginName, err)
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("result of %s: %v is no address", pluginName, ip.Address)
		}
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}

// del takes a pod off the network.
func (n *network) del(ctx context.Context, p *Pod) error {
	return n.cni.DelNetworkList(ctx, n.list, runtimeConf(p))
}
