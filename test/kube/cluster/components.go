package cluster

import (
	"fmt"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/plan"
)

// runtimeSocket is where the container runtime of a node serves.
const runtimeSocket = "/run/containerd/containerd.sock"

// spec is what node i is. The first has the control plane, on the node's own network as kubeadm has it.
func (c Config) spec(i int) (node.Spec, error) {
	name := c.Node(i)
	s := node.Spec{
		Name:   name,
		Cgroup: c.cgroup(name),
		Dir:    c.nodeDir(name),
		Logs:   c.logs(name),
		Path:   c.path(),
		Images: c.Programs.Images, Runtime: runtimeSocket,
		Files: map[string]string{
			"/etc/hosts":                      c.Hosts(),
			"/etc/hostname":                   name + "\n",
			"/etc/resolv.conf":                fmt.Sprintf("nameserver %s\n", c.Resolver()),
			"/etc/kubernetes/containerd.toml": c.containerdConfig(),
		},
	}
	kubelet, err := yaml.Marshal(c.kubeletConfig(name))
	if err != nil {
		return s, err
	}
	s.Files["/etc/kubernetes/kubelet.yaml"] = string(kubelet)
	if i == 1 {
		s.Components = c.controlPlane()
	}
	s.Components = append(s.Components, c.nodeComponents(i)...)
	return s, nil
}

// path is the PATH of nodes and of what runs outside.
func (c Config) path() string {
	return c.Programs.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// controlPlane is the components of node 1 besides those of every node.
func (c Config) controlPlane() []node.Component {
	bind := "0.0.0.0"
	if c.Family != plan.IPv4 {
		bind = "::"
	}
	as := func(user string) []string {
		config := c.PKI(user + ".kubeconfig")
		return []string{"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
			"--leader-elect=false", "--bind-address=127.0.0.1"}
	}
	local := fmt.Sprintf("tcp:127.0.0.1:%d", plan.APIPort)
	return []node.Component{
		{Name: "etcd", Args: []string{c.Program("etcd"), "--data-dir=/var/lib/etcd",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=default=http://127.0.0.1:2380",
			"--unsafe-no-fsync", // a test cluster does not outlive its machine
			"--log-level=warn",
		}},
		{Name: "kube-apiserver", After: "tcp:127.0.0.1:2379", Args: []string{c.Program("kube-apiserver"),
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address=" + c.APIServer().Addr().String(), "--bind-address=" + bind, fmt.Sprint("--secure-port=", plan.APIPort),
			"--tls-cert-file=" + c.PKI("apiserver.crt"), "--tls-private-key-file=" + c.PKI("apiserver.key"), "--client-ca-file=" + c.PKI("ca.crt"),
			"--kubelet-client-certificate=" + c.PKI("kubelet-client.crt"), "--kubelet-client-key=" + c.PKI("kubelet-client.key"),
			"--kubelet-certificate-authority=" + c.PKI("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
			"--service-cluster-ip-range=" + plan.Join(c.ServiceCIDRs()), "--allow-privileged",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + c.PKI("sa.pub"), "--service-account-signing-key-file=" + c.PKI("sa.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			// Extension API servers are reached at their pods, not through a proxy of Services on this node.
			"--enable-aggregator-routing=true",
			"--requestheader-client-ca-file=" + c.PKI("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + c.PKI("front-proxy-client.crt"), "--proxy-client-key-file=" + c.PKI("front-proxy-client.key"),
		}},
		{Name: "kube-controller-manager", After: local, Args: append([]string{c.Program("kube-controller-manager"),
			"--allocate-node-cidrs", "--cluster-cidr=" + plan.Join(c.PodCIDRs()), "--service-cluster-ip-range=" + plan.Join(c.ServiceCIDRs()),
			"--service-account-private-key-file=" + c.PKI("sa.key"), "--root-ca-file=" + c.PKI("ca.crt"),
			"--cluster-signing-cert-file=" + c.PKI("ca.crt"), "--cluster-signing-key-file=" + c.PKI("ca.key"),
			"--use-service-account-credentials",
		}, as("controller-manager")...)},
		{Name: "kube-scheduler", After: local, Args: append([]string{c.Program("kube-scheduler")}, as("scheduler")...)},
	}
}

// nodeComponents is those of every node. Each node is a zone of its own, for the tests that want some.
func (c Config) nodeComponents(i int) []node.Component {
	name := c.Node(i)
	return []node.Component{
		{Name: "containerd", Args: []string{c.Program("containerd"), "--config=/etc/kubernetes/containerd.toml"}},
		{Name: "kubelet", After: "unix:" + runtimeSocket, Args: []string{c.Program("kubelet"),
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=" + c.PKI(name+".kubeconfig"),
			"--hostname-override=" + name, "--node-ip=" + plan.Join(c.NodeAddrs(i)),
			fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=zone-%d,topology.kubernetes.io/region=region", i), "--v=2",
		}},
	}
}

// kubeletConfig is the KubeletConfiguration (kubelet.config.k8s.io/v1beta1) of a node.
func (c Config) kubeletConfig(name string) map[string]any {
	return map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"failCgroupV1":             false,
		"cgroupDriver":             "cgroupfs",
		"failSwapOn":               false,
		"containerRuntimeEndpoint": "unix://" + runtimeSocket,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": c.PKI("ca.crt")},
		},
		"authorization":          map[string]any{"mode": "Webhook"},
		"tlsCertFile":            c.PKI(name + "-server.crt"),
		"tlsPrivateKeyFile":      c.PKI(name + "-server.key"),
		"clusterDNS":             []string{c.DNSService()[0].String()},
		"clusterDomain":          "cluster.local",
		"resolvConf":             "/etc/resolv.conf",
		"makeIPTablesUtilChains": c.KubeletRules,
		// Images cannot be had again, so none is ever collected, and all nodes share one disk.
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"evictionHard":                map[string]string{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
		// Every kubelet believes all of the machine's memory to be its own.
		"systemReserved":            map[string]string{"memory": "1Gi"},
		"registryPullQPS":           0,
		"eventRecordQPS":            50,
		"maxPods":                   110,
		"nodeStatusUpdateFrequency": "5s",
	}
}

// containerdConfig is the container runtime's (version 3, https://github.com/containerd/containerd/blob/main/docs/cri/config.md).
func (c Config) containerdConfig() string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = %q

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = %q
        SystemdCgroup = false
`, runtimeSocket, c.Programs.Pause, filepath.Join(c.Programs.Bin, "runc"))
}
