package doctor

import "github.com/middleway-net/middleway/stack/tun"

// The groups, in the order in which they are shown.
const (
	groupTUN        = "TUN devices"
	groupTunnel     = "Sockets between nodes"
	groupNamespaces = "Namespaces and rights"
	groupIPv6       = "IPv6"
	groupMachine    = "Addresses, ports, files"
	groupKernel     = "The kernel's own network"
)

// procFD is the name of the probe that takes two processes, a holder and an opener.
const procFD = "proc-fd"

const noNamespace = "in a container start it with --privileged, else run it as root"

// probes is everything that is tried, in the order in which it is shown.
var probes = []probe{
	{
		name: "tun-open", group: groupTUN, title: "/dev/net/tun", place: here, try: openTUN,
		without: "nothing runs: every pod's interface is a TUN device",
		remedy:  "as root run `modprobe tun`",
	}, {
		name: "tun-ordinary", group: groupTUN, title: "/dev/net/tun for ordinary users", place: ordinary,
		without: "only root runs clusters",
		remedy:  "as root run `chmod 0666 /dev/net/tun`",
	}, {
		name: "tun-device", group: groupTUN, title: "TUN device", place: inside, try: makeTUN, after: "tun-open",
		without: "nothing runs: every pod's interface is a TUN device",
		remedy:  "use a kernel with CONFIG_TUN, and give this process CAP_NET_ADMIN",
	}, {
		name: "tun-queues", group: groupTUN, title: "several queues", place: inside, try: makeQueues, after: "tun-device",
		without: "a node runs with portableDevices: true in its configuration, slower; the playground does not start",
		remedy:  "use a kernel of Linux 3.8 or later",
	}, {
		name: "tun-persist", group: groupTUN, title: "devices that outlive the daemon", place: inside, try: keepTUN, after: "tun-device",
		without: "nothing runs: pods' devices are made so",
		remedy:  "give this process CAP_NET_ADMIN",
	}, {
		name: "tun-pod", group: groupTUN, title: "a pod's interface", place: inside, try: attachPod, after: "tun-queues",
		without: "nothing runs: pods cannot be attached",
		remedy:  "use a kernel of Linux 4.18 or later, and give this process CAP_NET_ADMIN",
	}, {
		name: "tun-checksum", group: groupTUN, title: "checksum offload", place: inside, after: "tun-device",
		try:     hasOffload(func(o tun.Offloads) bool { return o.Checksum }),
		without: "falls back: pods sum and verify what they send each other, and every packet goes by itself, much slower",
		remedy:  "use a kernel of Linux 2.6.27 or later",
	}, {
		name: "tun-tso", group: groupTUN, title: "TCP super-packets (TSO)", place: inside, after: "tun-device",
		try:     hasOffload(func(o tun.Offloads) bool { return o.TSO }),
		without: "falls back: every TCP packet goes by itself, much slower",
		remedy:  "use a kernel of Linux 2.6.27 or later",
	}, {
		name: "tun-uso", group: groupTUN, title: "UDP super-packets (USO)", place: inside, after: "tun-device",
		try:     hasOffload(func(o tun.Offloads) bool { return o.USO }),
		without: "falls back: datagrams that pods send in trains, as QUIC does, go one by one",
		remedy:  "use a kernel of Linux 6.2 or later",
	}, {
		name: "tap", group: groupTUN, title: "TAP device", place: inside, try: makeTAP, after: "tun-device",
		without: "cannot: no --underlay userspace, and no faults on links in tests",
		remedy:  "use a kernel with CONFIG_TUN, and give this process CAP_NET_ADMIN",
	},

	{
		name: "udp-socket", group: groupTunnel, title: "UDP socket", place: here, try: openSocket,
		without: "nothing runs: nodes reach each other by UDP",
		remedy:  "set up the loopback device, as root by `ip link set lo up`, and let this process open sockets",
	}, {
		name: "udp-segment", group: groupTunnel, title: "trains sent (UDP_SEGMENT)", place: here, try: sendTrain, after: "udp-socket",
		without: "falls back: every datagram to a peer is sent by itself, which costs most of the throughput between nodes",
		remedy:  "use a kernel of Linux 4.18 or later",
	}, {
		name: "udp-gro", group: groupTunnel, title: "trains received (UDP_GRO)", place: here, try: mergeTrain, after: "udp-socket",
		without: "falls back: every datagram of a peer is received by itself, slower",
		remedy:  "use a kernel of Linux 5.0 or later",
	}, {
		name: "udp-buffers", group: groupTunnel, title: "socket buffers", place: here, try: measureBuffers, after: "udp-socket",
		without: "falls back to what there is: bursts on fast networks are lost",
		remedy:  "as root run `sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608`",
	},

	{
		name: "capabilities", group: groupNamespaces, title: "CAP_NET_ADMIN and CAP_SYS_ADMIN", place: here, try: haveCapabilities,
		without: "no middleway node, unless in a user namespace; clusters are rootless",
		remedy:  "run it as root",
	}, {
		name: "user-namespace", group: groupNamespaces, title: "user namespaces", place: starting,
		without: "only root runs clusters",
		remedy:  "as root run `sysctl -w user.max_user_namespaces=15000`, in a container start it with --privileged",
	}, {
		name: "network-namespace", group: groupNamespaces, title: "network namespaces", place: starting, after: "user-namespace",
		without: "no clusters on this machine: nodes and pods are network namespaces",
		remedy:  noNamespace,
	}, {
		name: "mount-namespace", group: groupNamespaces, title: "mount namespaces", place: starting, after: "network-namespace",
		without: "no clusters on this machine",
		remedy:  noNamespace,
	}, {
		name: "pid-namespace", group: groupNamespaces, title: "PID namespaces", place: starting, after: "user-namespace",
		without: "no clusters on this machine: containers have one each",
		remedy:  noNamespace,
	}, {
		name: "uts-namespace", group: groupNamespaces, title: "UTS namespaces", place: starting, after: "user-namespace",
		without: "no clusters on this machine: pods have a host name of their own",
		remedy:  noNamespace,
	}, {
		name: "pod-namespace", group: groupNamespaces, title: "namespaces in namespaces", place: inside, try: makeNamespace,
		without: "no clusters on this machine: nodes and pods have one each",
		remedy:  noNamespace,
	}, {
		name: "proc-mount", group: groupNamespaces, title: "a /proc of its own", place: inside, try: mountProc, after: "pid-namespace",
		without: "falls back: containers see the machine's processes in /proc",
		remedy:  "in a container start it with --security-opt systempaths=unconfined",
	}, {
		name: "mounts", group: groupNamespaces, title: "mounts in them", place: inside, try: mountOver,
		without: "no clusters on this machine: pods have an /etc/hosts and volumes of their own",
		remedy:  noNamespace,
	}, {
		name: "unmounted-tmpfs", group: groupNamespaces, title: "tmpfs without a place", place: inside, try: makeDirectory,
		without: "middleway demo and the tests do not start; middleway up does",
		remedy:  "use a kernel of Linux 5.2 or later, with CONFIG_TMPFS",
	}, {
		name: procFD, group: groupNamespaces, title: "files by /proc/PID/fd", place: starting, after: "mount-namespace",
		without: "no clusters on this machine: daemons and plugins find namespaces and files so",
		remedy:  "give this process CAP_SYS_PTRACE, in a container by --cap-add=SYS_PTRACE",
	}, {
		name: "packet-socket", group: groupNamespaces, title: "packet sockets", place: inside, try: openPacketSocket,
		without: "middleway demo draws no packet",
		remedy:  "as root run `modprobe af_packet`",
	},

	{
		name: "ipv6-socket", group: groupIPv6, title: "IPv6 sockets", place: here, try: openIPv6,
		without: "falls back: nodes and pods have IPv4 only, and say so",
		remedy:  "start the kernel without ipv6.disable=1, or use one with CONFIG_IPV6",
	}, {
		name: "ipv6-setting", group: groupIPv6, title: "IPv6 turned on", place: here, try: readIPv6Setting, after: "ipv6-socket",
		without: "falls back: a node in this network namespace is one of IPv4 only, and says so",
		remedy:  "as root run `sysctl -w net.ipv6.conf.all.disable_ipv6=0`",
	}, {
		name: "ipv6-address", group: groupIPv6, title: "IPv6 addresses", place: inside, try: giveIPv6Address,
		without: "falls back: pods have IPv4 only",
		remedy:  "as root run `sysctl -w net.ipv6.conf.default.disable_ipv6=0`, or start the kernel without ipv6.disable=1",
	},

	{
		name: "node-address", group: groupMachine, title: "the node's address", place: here, try: findAddress,
		without: "a node needs address or underlay in its configuration",
		remedy:  "give the node its address: `middleway node --address ADDRESS`",
	}, {
		name: "vxlan-port", group: groupMachine, title: "the tunnel's port", place: here, try: bindTunnelPort,
		without: "middleway node does not start with its default port",
		remedy:  "set vxlan.port on all nodes",
	}, {
		name: "http-port", group: groupMachine, title: "the port of health and metrics", place: here, try: bindHTTP,
		without: "middleway node does not start with its default port",
		remedy:  "start the node with --http none, or with another address",
	}, {
		name: "host-settings", group: groupMachine, title: "settings of the host's device", place: here, try: openHostSetting,
		without: "where the reverse path filter is strict, packets from other nodes' hosts are lost",
		remedy:  "run the node as root, in a container with /proc/sys writable",
	}, {
		name: "loopback-addresses", group: groupMachine, title: "addresses of 127.0.0.0/8", place: here, try: bindLoopback,
		without: "cannot: no --underlay machine, which is an ordinary user's default",
		remedy:  "as root run `ip link set lo up`",
	}, {
		name: "icmp-echo", group: groupMachine, title: "ICMP echo", place: here, try: openEcho,
		without: "rootless nodes cannot send the machine's own ping",
		remedy:  "as root run `sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"`",
	}, {
		name: "run-dir", group: groupMachine, title: "the run directory", place: here, try: writeRunDir,
		without: "middleway node and middleway up do not start with their default directories",
		remedy:  "set XDG_RUNTIME_DIR to a directory of your own, or choose one by --run-dir (node) and --dir (up)",
	}, {
		name: "open-files", group: groupMachine, title: "limit of open files", place: here, try: countFiles,
		without: "the node takes fewer pods",
		remedy:  "raise the hard limit by `ulimit -Hn`",
	},

	{
		name: "veth", group: groupKernel, title: "veth", place: inside, try: makeLink("veth", newVeth),
		without: "falls back: a switch in userspace joins the nodes of a playground; no kernel to compare with",
		remedy:  "as root run `modprobe veth`, or use a kernel with CONFIG_VETH",
	}, {
		name: "bridge", group: groupKernel, title: "bridge", place: inside, try: makeLink("bridge", newBridge),
		without: "falls back: a switch in userspace joins more than two nodes; no kernel to compare with",
		remedy:  "as root run `modprobe bridge`, or use a kernel with CONFIG_BRIDGE",
	}, {
		name: "vxlan", group: groupKernel, title: "vxlan", place: inside, try: makeLink("vxlan", newVXLAN),
		without: "middleway does not use it; no kernel to compare with, and tests with the kernel's VXLAN are skipped",
		remedy:  "as root run `modprobe vxlan`, or use a kernel with CONFIG_VXLAN",
	}, {
		name: "nf-tables", group: groupKernel, title: "nf_tables", place: inside, try: makeTable,
		without: "middleway does not use it",
		remedy:  "as root run `modprobe nf_tables`, or use a kernel with CONFIG_NF_TABLES",
	}, {
		name: "tcp-cubic", group: groupKernel, title: "TCP congestion control cubic", place: inside, try: setCongestion,
		without: "throughput is compared with reno",
		remedy:  "as root run `modprobe tcp_cubic`",
	},
}
