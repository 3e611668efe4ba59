package node

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

const full = `
name: node-1
address: 192.168.254.11
podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
nodeAddresses: [192.168.254.11, "fd00:254::11"]
hostDevice: pods0
sockets: /run/test/sockets
clusterCIDRs: [10.96.0.0/16]
kubernetes: {kubeconfig: /etc/middleway/kubeconfig, server: "https://192.168.254.11:6443"}
services: {cidrs: [10.96.0.0/16, "fd00:10:96::/112"], besideKubeProxy: true, healthAddress: "192.168.254.11:10256"}
outsideSockets: /run/test/outside
egress: {off: true}
nodePorts: {off: true, addresses: [primary, 203.0.113.0/24]}
dns:
  addresses: [10.96.0.53, "fd00:10:96::35"]
  domain: test.example
  upstreams: [192.168.254.1, "192.168.254.2:5353", "fd00:254::1", "[fd00:254::2]:5353"]
  resolvConf: /etc/middleway/resolv.conf
  stubDomains: [{domain: corp.example, servers: [192.168.254.3]}]
  policy: round-robin
  maxConcurrent: 100
  cacheEntries: 500
  serveStale: 10m
  ttl: 30s
  pods: disabled
  autopath: true
mtu: 1400
workers: 4
spin: 100us
flowEntries: 1024
runDir: /run/test
portableDevices: true
echoPort: 1007
offloads: {udpSegment: off, udpGRO: "off", remoteChecksum: auto}
http: ":9000"
cni: {socket: /run/test/door.sock, interval: 2s}
vxlan: {vni: 7, port: 4789, mac: "02:00:00:00:00:01"}
peers:
- name: node-2
  address: 192.168.254.12
  podCIDRs: [10.244.2.0/24]
  nodeAddresses: ["fd00:254::12"]
  mac: "02:00:00:00:00:02"
  kernel: true
pods:
- name: default/web
  netns: /proc/1/ns/net
  addresses: [10.244.1.2, "fd00:10:244:1::2"]
`

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")}
	want := Config{
		Name: "node-1", Address: netip.MustParseAddr("192.168.254.11"),
		NodeAddresses: []netip.Addr{netip.MustParseAddr("192.168.254.11"), netip.MustParseAddr("fd00:254::11")}, HostDevice: "pods0",
		PodCIDRs: cidrs, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, MTU: 1400, Workers: 4,
		Spin: Duration(100 * time.Microsecond), FlowEntries: 1024, RunDir: "/run/test", PortableDevices: true, EchoPort: 1007,
		Offloads: Offloads{UDPSegment: Off, UDPGRO: Off, RemoteChecksum: Auto},
		Sockets:  "/run/test/sockets", OutsideSockets: "/run/test/outside", HTTP: ":9000",
		Egress: Egress{Off: true}, NodePorts: NodePorts{Off: true, Addresses: []FrontRange{{}, {netip.MustParsePrefix("203.0.113.0/24")}}},
		CNI:   CNI{Socket: "/run/test/door.sock", Interval: Duration(2 * time.Second)},
		VXLAN: VXLAN{VNI: 7, Port: 4789, MAC: "02:00:00:00:00:01"},
		Peers: []Peer{{
			Name: "node-2", Address: netip.MustParseAddr("192.168.254.12"),
			NodeAddresses: []netip.Addr{netip.MustParseAddr("fd00:254::12")},
			PodCIDRs:      []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}, MAC: "02:00:00:00:00:02", Kernel: true,
		}},
		Kubernetes: Kubernetes{Kubeconfig: "/etc/middleway/kubeconfig", Server: "https://192.168.254.11:6443"},
		Services: Services{
			CIDRs:           []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")},
			BesideKubeProxy: true, HealthAddress: "192.168.254.11:10256", ModeAddress: "none",
		},
		DNS: DNS{
			Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.53"), netip.MustParseAddr("fd00:10:96::35")}, Domain: "test.example",
			Upstreams:  upstreamsOf("192.168.254.1:53", "192.168.254.2:5353", "[fd00:254::1]:53", "[fd00:254::2]:5353"),
			ResolvConf: "/etc/middleway/resolv.conf", StubDomains: []StubDomain{{"corp.example", upstreamsOf("192.168.254.3:53")}},
			Policy: "round-robin", MaxConcurrent: 100, CacheEntries: 500, ServeStale: Duration(10 * time.Minute), TTL: Duration(30 * time.Second),
			Pods: "disabled", Autopath: true,
		},
		Pods: []Pod{{
			Name: "default/web", Netns: "/proc/1/ns/net",
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")},
		}},
	}
	addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	servers := cmp.Comparer(func(a, b Upstream) bool { return a == b })
	fronts := cmp.Comparer(func(a, b FrontRange) bool { return a == b })
	if diff := cmp.Diff(want, got, addrs, prefixes, servers, fronts); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(b)
	if err != nil {
		t.Fatalf("what was written does not read: %v", err)
	}
	if diff := cmp.Diff(got, again, addrs, prefixes, servers, fronts); diff != "" {
		t.Errorf("written and read again (-want +got):\n%s", diff)
	}
}

func upstreamsOf(addrs ...string) (all []Upstream) {
	for _, a := range addrs {
		all = append(all, Upstream{netip.MustParseAddrPort(a)})
	}
	return all
}

const least = `
name: n
address: 192.168.254.11
podCIDRs: [10.244.1.0/24]
`

// inCluster is least in a cluster.
const inCluster = least + "kubernetes: {inCluster: true}\n"

// found is least with an address that the node is to find.
const found = `
name: n
podCIDRs: [10.244.1.0/24]
`

// What follows from the address does so once it is known.
func TestConfigFoundAddress(t *testing.T) {
	c, err := ParseConfig([]byte(found + "underlay: {canReach: \"fd00:254::1\"}\nsockets: /run/user/1000/mw\npeers: [{address: \"fd00:254::12\", podCIDRs: [10.244.2.0/24]}]"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Address.IsValid() || c.VXLAN.MAC != "" || len(c.NodeAddresses) != 0 || !c.underlayV6() || c.Sockets != "/run/user/1000/mw" {
		t.Errorf("before: %+v", c)
	}
	own := netip.MustParseAddr("fd00:254::11")
	c.Underlay = underlay.Config{}
	c.setAddress(own)
	if err := c.check(); err != nil {
		t.Error(err)
	}
	if c.VXLAN.MAC != DefaultMAC(own).String() || len(c.NodeAddresses) != 1 || !c.underlayV6() {
		t.Errorf("after: %+v", c)
	}
	c.VXLAN.MAC = ""
	c.setAddress(netip.MustParseAddr("fd00:254::12"))
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "this node itself") {
		t.Errorf("found the address of a peer: got %v", err)
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := ParseConfig([]byte(least + "peers: [{address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}]"))
	if err != nil {
		t.Fatal(err)
	}
	if c.HostDevice != "mw0" || !slices.Equal(c.NodeAddresses, []netip.Addr{c.Address}) || c.ClusterCIDRs != nil ||
		!slices.Equal(c.Peers[0].NodeAddresses, []netip.Addr{c.Peers[0].Address}) {
		t.Errorf("hostDevice %q, nodeAddresses %v, %v, clusterCIDRs %v", c.HostDevice, c.NodeAddresses, c.Peers[0].NodeAddresses, c.ClusterCIDRs)
	}
	mac, err := vxlan.ParseMAC(c.VXLAN.MAC)
	if err != nil || mac[0]&3 != 2 {
		t.Errorf("default MAC %s: want one that is locally administered and unicast (%v)", c.VXLAN.MAC, err)
	}
	if c.VXLAN.MAC != DefaultMAC(c.Address).String() || DefaultMAC(c.Address) == DefaultMAC(c.Address.Next()) {
		t.Error("the default MAC must follow from the address")
	}
	if c.EchoPort != 7 || c.RunDir == "" {
		t.Errorf("echoPort %d, runDir %q", c.EchoPort, c.RunDir)
	}
}

// TestConfigHealthDefaults: where kube-proxy answers, there this node does in its place, and nowhere where that runs or nobody asks.
func TestConfigHealthDefaults(t *testing.T) {
	for _, tt := range []struct{ name, yaml, health, mode string }{
		{"no cluster", least, "none", "none"},
		{"an API server", inCluster, ":10256", "localhost:10249"},
		{"a folder", least + "kubernetes: {folder: /state}", "none", "none"},
		{"beside kube-proxy", inCluster + "services: {besideKubeProxy: true}", "none", "none"},
		{"beside kube-proxy, at another port", inCluster + "services: {besideKubeProxy: true, healthAddress: \":10257\"}", ":10257", "none"},
		{"turned off", inCluster + "services: {healthAddress: none}", "none", "localhost:10249"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig([]byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if c.Services.HealthAddress != tt.health || c.Services.ModeAddress != tt.mode {
				t.Errorf("got %s and %s, want %s and %s", c.Services.HealthAddress, c.Services.ModeAddress, tt.health, tt.mode)
			}
		})
	}
}

// TestConfigErrors: each mistake is named by its field, and the message says what it should be.
func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"empty", "", "name: "},
		{"not YAML", "name: [", "line 1: this is no YAML: "},
		{"not YAML, in the first line", ": : :", "line 1: this is no YAML: "},
		{"not YAML, later", least + "a: b: c", "line 5: this is no YAML: mapping values are not allowed"},
		{"not text", least + "hostDevice: \x01", "line 5: this is no YAML: control characters"},
		{"not UTF-8", least + "hostDevice: \xff", "line 5: this is no YAML: "},
		{"unknown anchor", least + "hostDevice: *mw", "line 5: this is no YAML: unknown anchor 'mw'"},
		{"two documents", least + "---\nname: m", "line 5: a second document begins"},
		{"no fields", "- name", "line 1: fields are needed, as in name: value, not a list"},
		{"unknown field", least + "mtuu: 1450", "line 5: unknown field \"mtuu\"; `middleway node --help` lists the fields"},
		{"field in another case", least + "peers:\n- Address: 192.168.254.12", `line 6: peers[0]: unknown field "Address"; did you mean address?`},
		{"wrong type", least + "workers: many", `line 5: workers: a whole number is needed, not "many"`},
		{"number in quotes", least + `mtu: "1400"`, `line 5: mtu: a whole number is needed, not "1400"`},
		{"number too large", least + "mtu: 9999999999999999999", "line 5: mtu: 9999999999999999999 is too large"},
		{"no boolean", least + "portableDevices: 1", "line 5: portableDevices: true or false is needed, not 1"},
		{"fields for a string", least + "http: {port: 9473}", "line 5: http: a string is needed, not fields"},
		{"no list", least + "peers: {name: node-2}", "line 5: peers: a list is needed, as in [a, b] or lines with a dash, not fields"},
		{"empty entry", least + "peers:\n-", "line 6: peers[0]: an entry of the list is empty"},
		{"out of range", least + "vxlan: {port: 99999}", "line 5: vxlan.port: 99999 is not between 0 and 65535"},
		{"below the range", least + "vxlan: {port: -1}", "line 5: vxlan.port: -1 is not between 0 and 65535"},
		{"twice", least + "name: m", "line 5: name: the field is there twice; keep one"},
		{"name", "name: \"a b\\nc\"\naddress: 192.168.254.11\npodCIDRs: [10.244.1.0/24]", `name: "a b\nc" is not a node's name as Kubernetes has them`},
		{"long name", "name: " + strings.Repeat("a", 254), "at most 253"},
		{"relative run directory", least + "runDir: run", `runDir: "run" is not an absolute path`},
		{"relative CNI socket", least + "cni: {socket: rel.sock}", `cni.socket: "rel.sock" is not an absolute path`},
		{"relative path of sockets", least + "sockets: mw", `sockets: "mw" is not an absolute path`},
		{"few flow entries", least + "flowEntries: 3", "flowEntries: 3 is not between 512 and 67108864"},
		{"no unicast address", "name: n\naddress: 224.0.0.1\npodCIDRs: [10.244.1.0/24]", "address: 224.0.0.1 is not an address like"},
		{"address and underlay", least + "underlay: {interface: eth0}", "underlay: address is given as well (192.168.254.11)"},
		{"two ways to the underlay", found + "underlay: {interface: eth0, cidr: 10.0.0.0/8}", "underlay.interface: cidr or canReach is given as well"},
		{"underlay's range", found + "underlay: {cidr: 10.0.0.1/8}", "underlay.cidr: 10.0.0.1/8 is not a range"},
		{"underlay's families", found + "underlay: {canReach: 10.0.0.1, ipv6: true}", "underlay.ipv6: canReach 10.0.0.1 is IPv4"},
		{"unknown way to the underlay", found + "underlay: {device: eth0}", `unknown field "device"`},
		{"peer of the other family, address to be found", found + `peers: [{address: "fd00:254::12", podCIDRs: [10.244.2.0/24]}]`, "peers[0].address: fd00:254::12 is not of the family"},
		{"long path of sockets", least + "sockets: /" + strings.Repeat("x", 107), "sockets: /xxx"},
		{"bad address", "name: n\naddress: 192.168.254", `line 2: address: "192.168.254" is not an address like 192.168.254.11`},
		{"small MTU", least + "mtu: 500", "mtu: 500 is not between 576 and 65485"},
		{"small MTU for IPv6", "name: n\naddress: 192.168.254.11\npodCIDRs: [10.244.1.0/24, \"fd00:10:244:1::/64\"]\nmtu: 1000", "mtu: 1000 is not between 1280 and 65485"},
		{"workers", least + "workers: 1000", "workers: 1000"},
		{"duration", least + "spin: 50", "line 5: spin: 50 is not a duration like 50us or 1m30s"},
		{"CNI interval", least + "cni: {interval: 1ms}", "cni.interval: 1ms is less than 10ms"},
		{"offload", least + "offloads: {tso: on}", "offloads.tso: on is neither auto nor off; auto uses it where it is there"},
		{"number for an offload", least + "offloads: {udpGRO: 1}", "offloads.udpGRO: 1 is neither auto nor off"},
		{"unknown offload", least + "offloads: {gso: off}", `line 5: offloads: unknown field "gso"`},
		{"offload of a portable device", least + "portableDevices: true\noffloads: {uso: off}", "offloads: with portableDevices"},
		{"VNI", least + "vxlan: {vni: 16777216}", "vxlan.vni"},
		{"MAC", least + `vxlan: {mac: "01:00:00:00:00:00"}`, "unicast"},
		{"no range", "name: n\naddress: 192.168.254.11", "podCIDRs: at least one"},
		{"host bits", "name: n\naddress: 192.168.254.11\npodCIDRs: [10.244.1.1/24]", "podCIDRs[0]: 10.244.1.1/24 is not a range but an address in one; did you mean 10.244.1.0/24?"},
		{"small range", "name: n\naddress: 192.168.254.11\npodCIDRs: [10.244.1.0/31]", "too small"},
		{"two of a family", "name: n\naddress: 192.168.254.11\npodCIDRs: [10.244.1.0/24, 10.244.2.0/24]", "one range of each family"},
		{"peer of another family", least + `peers: [{address: "fd00:254::12", podCIDRs: [10.244.2.0/24]}]`, "peers[0].address: fd00:254::12 is not of the family of this node's"},
		{"peer without address", least + "peers: [{name: node-2, podCIDRs: [10.244.2.0/24]}]", "peers[0].address: the peer's address is needed"},
		{"peer without address, address to be found", found + "peers: [{name: node-2, podCIDRs: [10.244.2.0/24]}]", "peers[0].address: the peer's address is needed"},
		{"peer's address is none", least + "peers: [{address: 224.0.0.1, podCIDRs: [10.244.2.0/24]}]", "peers[0].address: 224.0.0.1 is not an address like"},
		{"peer's address twice", least + "peers: [{address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}, {address: 192.168.254.12, podCIDRs: [10.244.3.0/24]}]", "peers[1].address: 192.168.254.12 is the address of peers[0] already"},
		{"peer's name twice", least + "peers: [{name: m, address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}, {name: m, address: 192.168.254.13, podCIDRs: [10.244.3.0/24]}]", "peers[1].name: m is the name of peers[0] already"},
		{"peer's name is another's address", least + "peers: [{address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}, {name: 192.168.254.12, address: 192.168.254.13, podCIDRs: [10.244.3.0/24]}]", "peers[1].name: 192.168.254.12 is the name of peers[0] already"},
		{"peer has this node's name", least + "peers: [{name: n, address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}]", "peers[0].name: n is this node's own name"},
		{"peer's name", least + "peers: [{name: Node_2, address: 192.168.254.12, podCIDRs: [10.244.2.0/24]}]", `peers[0].name: "Node_2" is not a node's name`},
		{"peer is the node", least + "peers: [{address: 192.168.254.11, podCIDRs: [10.244.2.0/24]}]", "this node itself"},
		{"peer's range", least + "peers: [{address: 192.168.254.12, podCIDRs: [10.244.0.0/16]}]", "peers[0].podCIDRs[0]: 10.244.0.0/16 overlaps 10.244.1.0/24"},
		{"device's name", least + "hostDevice: a/b", `hostDevice: "a/b" is not an interface name`},
		{"node's address is loopback", least + "nodeAddresses: [127.0.0.1]", "nodeAddresses: 127.0.0.1"},
		{"node's address is link-local", least + `nodeAddresses: ["fe80::1"]`, "nodeAddresses: fe80::1"},
		{"node's address twice", least + "nodeAddresses: [192.168.254.11, 192.168.254.11]", "192.168.254.11 is named twice"},
		{"peer's address is the node's", least + "peers: [{address: 192.168.254.12, podCIDRs: [10.244.2.0/24], nodeAddresses: [192.168.254.11]}]", "peers[0].nodeAddresses: 192.168.254.11 is named twice, this node has it"},
		{"node among pods", "name: n\naddress: 10.244.1.9\npodCIDRs: [10.244.1.0/24]", "10.244.1.9 of a node lies within 10.244.1.0/24"},
		{"two sources", "name: n\nkubernetes: {inCluster: true, folder: /state}", "kubernetes: kubeconfig, inCluster and folder are three ways"},
		{"a server alone", least + "kubernetes: {server: \"https://192.168.254.1:6443\"}", "kubernetes.server: who this node is"},
		{"a server and a folder", "name: n\nkubernetes: {folder: /state, server: \"https://192.168.254.1:6443\"}", "kubernetes.server: with folder there is no API server"},
		{"a relative folder", "name: n\nkubernetes: {folder: state}", "kubernetes.folder: \"state\" is not an absolute path"},
		{"a relative kubeconfig", "name: n\nkubernetes: {kubeconfig: config}", "kubernetes.kubeconfig: \"config\" is not an absolute path"},
		{"a server without a scheme", "name: n\nkubernetes: {inCluster: true, server: \"192.168.254.1:6443\"}", "kubernetes.server: \"192.168.254.1:6443\" is not an address like https://"},
		{"Services without a cluster", least + "services: {cidrs: [10.96.0.0/16]}", "services: they come from Kubernetes"},
		{"Services among pods", least + "kubernetes: {inCluster: true}\nservices: {cidrs: [10.244.0.0/16]}", "services.cidrs[0]: 10.244.0.0/16 overlaps 10.244.1.0/24"},
		{"Services around nodes", least + "kubernetes: {inCluster: true}\nservices: {cidrs: [10.96.0.0/16, 192.168.0.0/16]}", "services.cidrs[1]: 192.168.0.0/16 contains 192.168.254.11 of a node"},
		{"NodePorts at an address", least + "nodePorts: {addresses: [primary, 192.168.254.11]}", "nodePorts.addresses[1]: \"192.168.254.11\" is not a range like 192.168.254.0/24, or primary"},
		{"NodePorts at an address in a range", least + "nodePorts: {addresses: [192.168.254.11/24]}", "nodePorts.addresses[0]: 192.168.254.11/24 is not a range; write its first address, as in 192.168.254.0/24"},
		{"NodePorts at groups", least + "nodePorts: {addresses: [224.0.0.0/4]}", "nodePorts.addresses[0]: 224.0.0.0/4 has no address that clients could name"},
		{"health without a port", inCluster + "services: {healthAddress: 192.168.254.11}", `services.healthAddress: "192.168.254.11" is not an address like 192.168.254.11:10256 or :10256`},
		{"health at port 0", inCluster + "services: {healthAddress: \":0\"}", `services.healthAddress: ":0" is not an address like`},
		{"health by a name", inCluster + "services: {healthAddress: \"node:10256\"}", `services.healthAddress: "node:10256" is not an address like`},
		{"mode at a service's name", inCluster + "services: {modeAddress: \"localhost:http\"}", `services.modeAddress: "localhost:http" is not an address like`},
		{"mode at the port of health", inCluster + "services: {modeAddress: \"localhost:10256\"}", "services.modeAddress: it has the port of services.healthAddress"},
		{"health without a cluster", least + "services: {healthAddress: \":10256\"}", "services.healthAddress and services.modeAddress: Services come from Kubernetes"},
		{"relative store", least + "fdStore: s", "fdStore: \"s\" is not an absolute path like /run/middleway/fdstore.sock"},
		{"relative sockets outside", least + "outsideSockets: s", "outsideSockets: \"s\" is not an absolute path"},
		{"Services in no range", least + "kubernetes: {inCluster: true}\nservices: {cidrs: [10.96.0.1/16]}", "services.cidrs[0]: 10.96.0.1/16 is not a range"},
		{"DNS without a cluster", least + "dns: {addresses: [10.96.0.10]}", "dns.addresses: the cluster's names come from Kubernetes"},
		{"DNS on the loopback", inCluster + "dns: {addresses: [127.0.0.53]}", "dns.addresses[0]: 127.0.0.53 is not an address like 10.96.0.10"},
		{"DNS at two addresses", inCluster + "dns: {addresses: [10.96.0.10, 10.96.0.11]}", "dns.addresses[1]: 10.96.0.11 is one too many"},
		{"DNS among pods", inCluster + "dns: {addresses: [10.244.1.10]}", "dns.addresses[0]: 10.244.1.10 lies in 10.244.1.0/24"},
		{"echo where DNS is", inCluster + "dns: {addresses: [10.96.0.10]}\nechoPort: 53", "echoPort: 53 at the gateway addresses is the cluster's DNS"},
		{"DNS upstream by name", inCluster + "dns: {upstreams: [dns.example.com]}", `dns.upstreams[0]: "dns.example.com" is not the address of a server like`},
		{"DNS upstream is the cluster's DNS", inCluster + "dns: {addresses: [10.96.0.10], upstreams: [10.96.0.10]}", "dns: upstream 10.96.0.10:53: this is the address of the cluster's DNS itself"},
		{"DNS upstream without a port", inCluster + `dns: {upstreams: ["192.168.254.1:0"]}`, "dns: upstream 192.168.254.1:0: not the address and port of a server"},
		{"DNS domain", inCluster + "dns: {domain: a..b}", `dns: cluster domain: name "a..b": a label has 1 to 63 bytes`},
		{"DNS time to live", inCluster + "dns: {ttl: 1500ms}", "dns: time to live 1.5s: whole seconds up to an hour"},
		{"DNS policy", inCluster + "dns: {policy: first}", `dns.policy: "first" is not random, round-robin or sequential`},
		{"DNS pods", inCluster + "dns: {pods: verified}", `dns.pods: "verified" is not insecure or disabled`},
		{"DNS cache", inCluster + "dns: {cacheEntries: -2}", "dns.cacheEntries: -2 is not between"},
		{"DNS questions", inCluster + "dns: {maxConcurrent: -1}", "dns.maxConcurrent: -1 is not between"},
		{"DNS resolv.conf", inCluster + "dns: {resolvConf: resolv.conf}", `dns.resolvConf: "resolv.conf" is not an absolute path`},
		{"DNS stub without servers", inCluster + "dns: {stubDomains: [{domain: corp.example}]}", "dns: stub domain corp.example: at least one server is needed"},
		{"DNS stub twice", inCluster + "dns: {stubDomains: [{domain: a.example, servers: [192.168.254.3]}, {domain: a.example}]}", "dns.stubDomains[1].domain: \"a.example\" is missing or there twice"},
		{"cluster's range is everything", least + "clusterCIDRs: [0.0.0.0/0]", "clusterCIDRs[0]: 0.0.0.0/0 is every address there is"},
		{"cluster's range has a node", least + "clusterCIDRs: [10.96.0.0/16, 192.168.0.0/16]", "clusterCIDRs[1]: 192.168.0.0/16 contains 192.168.254.11"},
		{"pod without namespace", least + "pods: [{name: a, addresses: [10.244.1.2]}]", "pods[0].netns"},
		{"pod outside", least + "pods: [{name: a, netns: /n, addresses: [10.244.2.2]}]", "outside podCIDRs"},
		{"pod is the gateway", least + "pods: [{name: a, netns: /n, addresses: [10.244.1.1]}]", "gateway"},
		{"pod address twice", least + "pods: [{name: a, netns: /n, addresses: [10.244.1.2]}, {name: b, netns: /m, addresses: [10.244.1.2]}]", "pods[1].addresses: 10.244.1.2 belongs to a"},
		{"pod name twice", least + "pods: [{name: a, netns: /n, addresses: [10.244.1.2]}, {name: a, netns: /m, addresses: [10.244.1.3]}]", "pods[1].name: a is the name of pods[0] already"},
		{"pod's name", least + `pods: [{name: "a\nb", netns: /n, addresses: [10.244.1.2]}]`, `pods[0].name: "a\nb" is not a name like default/web`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(tt.yaml))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			if strings.ContainsAny(err.Error(), "\n\t") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

// TestConfigRanges: ranges in which no pod and no Service can be are refused wherever a range stands.
func TestConfigRanges(t *testing.T) {
	for cidr, want := range map[string]string{
		"0.0.0.0/0": "every address", "0.0.0.0/8": "this host", "127.0.0.0/24": "loopback", "126.0.0.0/7": "loopback", "169.254.0.0/16": "link-local",
		"169.254.7.0/24": "link-local", "224.0.0.0/24": "multicast", "240.0.0.0/8": "reserved", "255.255.255.0/24": "reserved",
		"::/0": "every address", "::/64": "loopback", "::ffff:10.0.0.0/104": "not a range", "fe80::/64": "link-local", "ff02::/64": "multicast",
		"fd00:10:244:1::5/64": "did you mean fd00:10:244:1::/64?",
	} {
		for field, text := range map[string]string{
			"podCIDRs[0]":          "name: n\naddress: 192.168.254.11\npodCIDRs: [\"" + cidr + "\"]",
			"clusterCIDRs[1]":      least + "clusterCIDRs: [10.96.0.0/16, \"" + cidr + "\"]",
			"peers[0].podCIDRs[0]": least + "peers: [{address: 192.168.254.12, podCIDRs: [\"" + cidr + "\"]}]",
		} {
			_, err := ParseConfig([]byte(text))
			if err == nil || !strings.HasPrefix(err.Error(), field+": "+cidr) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: got %v, want %q", field, cidr, err, want)
			}
		}
	}
	for _, cidr := range []string{"100.64.0.0/10", "10.0.0.0/8", "223.255.255.0/24", "64:ff9b::/96", "2001:db8::/32"} {
		if _, err := ParseConfig([]byte("name: n\naddress: 192.168.254.11\npodCIDRs: [\"" + cidr + "\"]")); err != nil {
			t.Error(err)
		}
	}
}

// TestParseConfigForms: what YAML offers to write a value in.
func TestParseConfigForms(t *testing.T) {
	c, err := ParseConfig([]byte(`# a comment
name: 7          # a number is a name
address: &own 192.168.254.11
podCIDRs: [10.244.1.0/24]
nodeAddresses: [*own]
hostDevice:      # empty: the default
vxlan: {mac: 02:00:00:00:00:01, port: 0x12b5}
offloads: {tso: off, uso: false, checksum: "off"}
portableDevices: False
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "7" || c.NodeAddresses[0] != c.Address || c.HostDevice != DefaultHostDevice || c.VXLAN.MAC != "02:00:00:00:00:01" || c.VXLAN.Port != 4789 ||
		c.Offloads.TSO != Off || c.Offloads.USO != Off || c.Offloads.Checksum != Off || c.PortableDevices {
		t.Errorf("got %+v", c)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(least))
	f.Add([]byte(found + "underlay: {cidr: \"fd00:254::/64\", ipv6: true}"))
	f.Add([]byte("podCIDRs: [::/0, 0.0.0.0/0]\naddress: ::\nname: x"))
	f.Add([]byte("name: &a [*a]\npods: [*a]\n---\n"))
	f.Add([]byte("name: *a\n\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseConfig(again); err != nil {
			t.Errorf("a good configuration does not read again: %v\n%s", err, again)
		}
	})
}

// In a cluster the ranges, the address and what follows from them come from the node's object, but for what the configuration says.
func TestConfigTakesFromNodeObject(t *testing.T) {
	mac := "02:00:00:00:00:07"
	self := &object.Node{
		Name:      "node-1",
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
		Addresses: []netip.Addr{netip.MustParseAddr("fd00:254::11"), netip.MustParseAddr("192.168.254.11"), netip.MustParseAddr("fe80::1")},
		Annotations: map[string]string{
			"flannel.alpha.coreos.com/backend-data": `{"VNI":1,"VtepMAC":"` + mac + `"}`,
		},
	}
	for _, row := range []struct {
		name, text, address, mac string
		ranges, nodeAddresses    int
	}{
		{"all of it", "", "192.168.254.11", mac, 2, 2},
		{"the address is to be found", "underlay: {interface: eth0}", "invalid IP", mac, 2, 2},
		{"over IPv6 there is no address of the VTEP yet", "address: \"fd00:254::11\"", "fd00:254::11", DefaultMAC(netip.MustParseAddr("fd00:254::11")).String(), 2, 2},
		{"nothing of it", "address: 192.168.254.77\npodCIDRs: [10.244.9.0/24]\nnodeAddresses: [192.168.254.77]\nvxlan: {mac: \"02:00:00:00:00:08\"}", "192.168.254.77", "02:00:00:00:00:08", 1, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := ParseConfig([]byte("name: node-1\nkubernetes: {inCluster: true}\n" + row.text))
			if err != nil {
				t.Fatal(err)
			}
			c.take(self)
			if err := c.check(); err != nil {
				t.Fatal(err)
			}
			if c.Address.String() != row.address || c.VXLAN.MAC != row.mac || len(c.PodCIDRs) != row.ranges || len(c.NodeAddresses) != row.nodeAddresses {
				t.Errorf("address %v, mac %v, podCIDRs %v, nodeAddresses %v", c.Address, c.VXLAN.MAC, c.PodCIDRs, c.NodeAddresses)
			}
		})
	}
}
