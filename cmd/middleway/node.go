package main

import (
	"errors"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/node"
)

const nodeHelp = `Runs the daemon of one node until it gets SIGTERM or SIGINT.

The configuration is a YAML file, whose fields some flags override:

  name: node-1                    required; as Kubernetes calls it: lower-case letters, digits, - and .
  address: 192.168.254.11         this node on the underlay; default: found as underlay says
  publicAddress: 203.0.113.11     by which peers reach it, where something in between translates; default: address
  underlay:                       how the address is found; at most one of the three; default: by the default route
    interface: eth0
    cidr: 192.168.254.0/24        the first address in it
    canReach: 192.168.254.1       the source address toward it
    ipv6: false                   true: the nodes reach each other by IPv6
  sockets: PATH                   rootless: where "middleway sockets" serves outside; default: sockets of its own
  outsideSockets: PATH            the same for what enters and leaves the cluster: egress and nodePorts; default: sockets
  fdStore: PATH                   where "middleway fdstore" keeps listening sockets while no daemon is there; default: nobody does
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]   required without kubernetes; the network's own address is the host's,
                                  the next one the pods' gateway
  nodeAddresses: [192.168.254.11] this node as pods know it; default: address
  hostDevice: mw0                 through it the host reaches all pods, and they the host; none: without
  clusterCIDRs: [10.244.0.0/16]   further ranges that the host reaches through it; default: those of podCIDRs alone
  mtu: 1450                       of the pods, bytes; default: the underlay's less 50 (70 with IPv6 outside)
  workers: 2                      default: the number of processors, at most 8
  spin: 50us                      how long a worker polls before it sleeps; negative: not at all
  flowEntries: 65536              size of the flow table, two entries a flow, 128 bytes each; at least 512, rounded up to
                                  a power of two
  runDir: /run/middleway          state that a restarted daemon takes up again; default of an ordinary user:
                                  middleway in $XDG_RUNTIME_DIR
  portableDevices: false          true: devices with one queue and without super-packets, slower
  offloads: {udpSegment: auto, udpGRO: auto, tso: auto, uso: auto, checksum: auto, remoteChecksum: auto}
                                  auto: used where kernel and peer have it; off: not used, slower
  echoPort: 7                     echo service on the gateway addresses; -1 turns it off
  http: 127.0.0.1:9473            /healthz, /readyz and /metrics; none turns them off
  cni:
    socket: /run/middleway/cni.sock   where the CNI plugin asks; default: cni.sock in runDir
    interval: 1m                  how often pods are looked for that have gone without a DEL
    conflist: PATH                the network configuration, for example /etc/cni/net.d/10-middleway.conflist, written when this
                                  node serves and kept as it is; default: none is written
  vxlan: {vni: 1, port: 8472, mac: "02:…"}          the MAC is made from the address by default
    # anySource: true             what peers send seems to come from another address, as behind a port driver (docs/rootless.md)
  peers:                          default: those that kubernetes tells
  - name: node-2                  for messages and metrics; default: its address
    address: 192.168.254.12       required
    podCIDRs: [10.244.2.0/24]     required
    nodeAddresses: [192.168.254.12]   it as pods know it; default: its address
    kernel: false                 true for a kernel's VXLAN device, for example flannel's
    trains: false                 true for a kernel peer that is known to take trains of datagrams
    mac: "02:…"                   default as the peer makes it
  kubernetes:                     where the cluster's objects come from; at most one of the first three; default: there is no cluster
    kubeconfig: /etc/middleway/kubeconfig
    inCluster: false              true: this process runs in a pod and uses its service account
    folder: /run/middleway-state  a folder of objects, which somebody else writes
    server: https://192.168.254.11:6443   the API server's own address; default: what kubeconfig or the pod's environment says
  services:
    cidrs: [10.96.0.0/16, "fd00:10:96::/112"]   from which Services have their addresses; default none: the host does not reach them
    besideKubeProxy: false        true: kube-proxy serves the host's own programs, this daemon the pods
  egress:
    off: false                    true: pods reach nothing outside of the cluster
  nodePorts:                      NodePorts and externalIPs of Services; host ports of pods
    off: false                    true: another program serves those of Services; default with besideKubeProxy
    addresses: [primary, 127.0.0.1/32, "::1/128"]   where they are: nodeAddresses (primary), and addresses of the node in ranges
    outsideAddresses: [primary]   the same on the side of outsideSockets; default: as addresses
  dns:                            the cluster's DNS, answered by the node itself
    off: false                    true: another server answers at the DNS Service's address, for example CoreDNS
    addresses: [10.96.0.10]       of the DNS Service; default: the tenth address of each of services.cidrs
    domain: cluster.local
    upstreams: [192.168.254.1]    asked about other names, with or without a port; default: those of resolvConf
    resolvConf: /etc/resolv.conf  none: other names are not answered
    stubDomains: [{domain: corp.example, servers: [192.168.254.3]}]   about which others are asked
    policy: random                the order of upstreams: random, round-robin or sequential
    maxConcurrent: 1000           questions that may wait for upstreams
    cacheEntries: 10000           answers of upstreams that are kept; -1: none
    serveStale: 1h                how long they are given beyond their life if no upstream answers; negative: not at all
    ttl: 5s                       of the cluster's records
    pods: insecure                which names of pods exist: insecure (every address) or disabled
    autopath: false               true: the search path of pods is followed here; docs/dns.md tells its hazard
  pods:                           that no CNI plugin attaches
  - name: default/web
    netns: /proc/4711/ns/net      required; has to be there, unless the last daemon had this pod
    addresses: [10.244.1.2]       required

It needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the user namespace of the network namespaces (root, or a user namespace of its
own), and /dev/net/tun; docs/node.md has the whole list with the reasons. The pods' devices and the host's outlive it: the next
daemon on the same runDir takes them and the flows up again. --cleanup removes them when no daemon is to follow.`

func nodeCommand() *cobra.Command {
	var file string
	var logs logFlags
	var over nodeFlags
	var cleanup, toFlannel bool
	var binDir pathFlag
	cmd := &cobra.Command{
		Use:   "node [--config FILE] [flags]",
		Short: "Run the daemon of one node",
		Long:  nodeHelp,
		Example: `  middleway node --config /etc/middleway/node.yaml
  middleway node --config node.yaml --name "$NODE_NAME" --log-format json --log-level debug
  middleway node --name node-1 --address 192.168.254.11 --pod-cidr 10.244.1.0/24
  middleway node --name "$NODE_NAME" --kubeconfig /etc/middleway/kubeconfig --service-cidr 10.96.0.0/16
  middleway node --config /etc/middleway/node.yaml --cleanup
  middleway node --config /etc/middleway/node.yaml --cleanup --bin-dir /opt/cni/bin
  middleway node --config /etc/middleway/node.yaml --cleanup --to-flannel`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" && over.name == "" {
				return errors.New("node: --config FILE is needed, or at least --name; `middleway node --help` shows what stands in the file")
			}
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			c, err := node.ReadConfig(file, over.apply)
			if err != nil {
				return err
			}
			if cleanup {
				err := node.Cleanup(c, toFlannel, log)
				if binDir != "" {
					err = errors.Join(err, cni.Uninstall(string(binDir)))
				}
				return err
			}
			if binDir != "" {
				return errors.New("node: --bin-dir says what --cleanup removes; `middleway install` puts the plugin there")
			}
			if toFlannel {
				return errors.New("node: --to-flannel says what --cleanup leaves; give both")
			}
			return node.Run(cmd.Context(), c, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "remove what a daemon with this configuration left (devices, routes, state), and end")
	cmd.Flags().Var(&binDir, "bin-dir", "with --cleanup: remove the plugin from this directory too, where `middleway install` has put it")
	cmd.Flags().BoolVar(&toFlannel, "to-flannel", false, "with --cleanup: leave the Node object's annotations of the tunnel to flannel, which takes the VTEP's address from there")
	logs.register(cmd)
	over.register(cmd)
	return cmd
}

// nodeFlags override fields of the configuration file.
type nodeFlags struct {
	name, http, apiServer                  string
	runDir, sockets, cniSocket, kubeconfig pathFlag
	address                                addrFlag
	podCIDRs, serviceCIDRs                 prefixFlags
	mtu, workers                           int
	inCluster, besideKubeProxy, noDNS      bool
	noEgress, noNodePorts                  bool
	dnsAddrs                               addrFlags
}

func (f *nodeFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "name of the node (overrides name)")
	cmd.Flags().Var(&f.address, "address", "the node's address on the underlay (overrides address)")
	cmd.Flags().Var(&f.podCIDRs, "pod-cidr", "range of the node's pods, once for each family (overrides podCIDRs)")
	cmd.Flags().IntVar(&f.mtu, "mtu", 0, "MTU of the pods in bytes (overrides mtu)")
	cmd.Flags().IntVar(&f.workers, "workers", 0, "number of workers (overrides workers)")
	cmd.Flags().Var(&f.runDir, "run-dir", "run directory (overrides runDir)")
	cmd.Flags().Var(&f.cniSocket, "cni-socket", "where the CNI plugin asks (overrides cni.socket)")
	cmd.Flags().Var(&f.sockets, "sockets", "where \"middleway sockets\" serves outside, of a rootless node (overrides sockets)")
	cmd.Flags().Var(&f.kubeconfig, "kubeconfig", "kubeconfig file of the cluster (overrides kubernetes.kubeconfig)")
	cmd.Flags().BoolVar(&f.inCluster, "in-cluster", false, "reach the cluster by the service account of this pod (overrides kubernetes.inCluster)")
	cmd.Flags().StringVar(&f.apiServer, "api-server", "", "the API server's own address, like https://192.168.254.11:6443 (overrides kubernetes.server)")
	cmd.Flags().Var(&f.serviceCIDRs, "service-cidr", "range of Services, once for each family (overrides services.cidrs)")
	cmd.Flags().BoolVar(&f.besideKubeProxy, "beside-kube-proxy", false, "kube-proxy serves the host's own programs (overrides services.besideKubeProxy)")
	cmd.Flags().BoolVar(&f.noEgress, "no-egress", false, "pods reach nothing outside of the cluster (overrides egress.off)")
	cmd.Flags().BoolVar(&f.noNodePorts, "no-node-ports", false, "another program serves NodePorts and externalIPs (overrides nodePorts.off)")
	cmd.Flags().Var(&f.dnsAddrs, "dns-address", "address of the DNS Service, once for each family (overrides dns.addresses)")
	cmd.Flags().BoolVar(&f.noDNS, "no-dns", false, "another server answers at the DNS Service's address (overrides dns.off)")
	cmd.Flags().StringVar(&f.http, "http", "", "address of /healthz, /readyz and /metrics, or none (overrides http)")
}

func (f *nodeFlags) apply(c *node.Config) {
	c.Version = version
	c.PodNamespace, c.PodName = os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME") // as manifests call them (downward API)
	override(&c.Name, f.name)
	override(&c.RunDir, string(f.runDir))
	override(&c.CNI.Socket, string(f.cniSocket))
	override(&c.Sockets, string(f.sockets))
	override(&c.HTTP, f.http)
	override(&c.MTU, f.mtu)
	override(&c.Workers, f.workers)
	override(&c.Address, netip.Addr(f.address))
	override(&c.Kubernetes.Kubeconfig, string(f.kubeconfig))
	override(&c.Kubernetes.InCluster, f.inCluster)
	override(&c.Kubernetes.Server, f.apiServer)
	override(&c.Services.BesideKubeProxy, f.besideKubeProxy)
	override(&c.Egress.Off, f.noEgress)
	override(&c.NodePorts.Off, f.noNodePorts)
	override(&c.DNS.Off, f.noDNS)
	if len(f.dnsAddrs) > 0 {
		c.DNS.Addresses = f.dnsAddrs
	}
	if len(f.podCIDRs) > 0 {
		c.PodCIDRs = f.podCIDRs
	}
	if len(f.serviceCIDRs) > 0 {
		c.Services.CIDRs = f.serviceCIDRs
	}
}

// override sets a field if the flag was given.
func override[T comparable](field *T, flag T) {
	var unset T
	if flag != unset {
		*field = flag
	}
}
