package nodes

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

var comparable = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
var comparablePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(all ...string) (list []netip.Addr) {
	for _, s := range all {
		list = append(list, addr(s))
	}
	return list
}

func ranges(all ...string) (list []netip.Prefix) {
	for _, s := range all {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

var mac1, mac2, mac3 = vxlan.MAC{2, 0, 0, 0, 0, 1}, vxlan.MAC{2, 0, 0, 0, 0, 2}, vxlan.MAC{2, 0, 0, 0, 0, 3}

// self is node-1 of the address plan.
func self() Self {
	return Self{
		Name: "node-1", Address: addr("192.168.254.11"), VNI: 1, MAC: mac1,
		PodCIDRs: ranges("10.244.1.0/24", "fd00:10:244:1::/64"), Addresses: addrs("192.168.254.11", "fd00:254::11"),
		ServiceCIDRs: ranges("10.96.0.0/16", "fd00:10:96::/112"),
	}
}

// flannel makes a node as flanneld leaves it, change as a middleway node or a mistake.
func flannel(name, address string, mac vxlan.MAC, change ...func(*object.Node)) *object.Node {
	n := &object.Node{
		Name: name, PodCIDRs: ranges("10.244." + address[len(address)-1:] + ".0/24"), Addresses: addrs(address),
		Annotations: map[string]string{
			"flannel.alpha.coreos.com/kube-subnet-manager": "true",
			"flannel.alpha.coreos.com/backend-type":        "vxlan",
			"flannel.alpha.coreos.com/backend-data":        `{"VNI":1,"VtepMAC":"` + mac.String() + `"}`,
			"flannel.alpha.coreos.com/public-ip":           address,
		},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func annotation(key, value string) func(*object.Node) {
	return func(n *object.Node) { n.Annotations[key] = value }
}

func dual(n *object.Node) {
	n.Annotations["middleway.net/tunnel"] = "1"
	n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix("fd00:10:244:2::/64"))
	n.Addresses = append(n.Addresses, addr("fd00:254::12"))
}

func TestPeers(t *testing.T) {
	kernel := Peer{Name: "node-2", Address: addr("192.168.254.12"), MAC: mac2, PodCIDRs: ranges("10.244.2.0/24"), Addresses: addrs("192.168.254.12")}
	middleway := Peer{
		Name: "node-2", Address: addr("192.168.254.12"), MAC: mac2, Middleway: true,
		PodCIDRs: ranges("10.244.2.0/24", "fd00:10:244:2::/64"), Addresses: addrs("192.168.254.12", "fd00:254::12"),
	}
	outside := middleway
	outside.Address = addr("203.0.113.12")
	outside.Addresses = addrs("203.0.113.12", "192.168.254.12", "fd00:254::12")
	only4 := self()
	only4.PodCIDRs = only4.PodCIDRs[:1]
	over6 := self()
	over6.Address = addr("fd00:254::11")
	peer6 := middleway
	peer6.Address, peer6.Addresses = addr("fd00:254::12"), addrs("fd00:254::12", "192.168.254.12")
	for _, row := range []struct {
		name string
		self Self
		node *object.Node
		want Peer
	}{
		{"flannel", self(), flannel("node-2", "192.168.254.12", mac2), kernel},
		{"flannel carries IPv6 in another tunnel", self(), flannel("node-2", "192.168.254.12", mac2, dual, annotation("middleway.net/tunnel", "")), func() Peer {
			p := kernel
			p.Addresses = addrs("192.168.254.12", "fd00:254::12")
			return p
		}()},
		{"middleway", self(), flannel("node-2", "192.168.254.12", mac2, dual), middleway},
		{"a later version of middleway is met as a kernel is", only4, flannel("node-2", "192.168.254.12", mac2, annotation("middleway.net/tunnel", "2")), kernel},
		{"another address outside", self(), flannel("node-2", "192.168.254.12", mac2, dual, annotation("flannel.alpha.coreos.com/public-ip", "203.0.113.12")), outside},
		{"no IPv6 here", only4, flannel("node-2", "192.168.254.12", mac2, dual), func() Peer {
			p := kernel
			p.Middleway = true
			return p
		}()},
		{"over IPv6", over6, flannel("node-2", "192.168.254.12", mac2, dual, annotation("flannel.alpha.coreos.com/public-ipv6", "fd00:254::12"),
			annotation("flannel.alpha.coreos.com/backend-v6-data", `{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}`)), peer6},
	} {
		t.Run(row.name, func(t *testing.T) {
			peers, left := Compile(row.self, []*object.Node{row.node, {Name: "node-1"}})
			if diff := cmp.Diff([]Peer{row.want}, peers, comparable, comparablePrefix); diff != "" || len(left) > 0 {
				t.Errorf("peers (-want +got):\n%sleft %v", diff, left)
			}
		})
	}
}

func TestLeftOut(t *testing.T) {
	const p = "flannel.alpha.coreos.com/"
	for _, row := range []struct {
		name  string
		node  *object.Node
		waits bool
		why   string
	}{
		{"nothing announced", &object.Node{Name: "node-3", PodCIDRs: ranges("10.244.3.0/24")}, true, "not announced a tunnel yet"},
		{"not true", flannel("node-3", "192.168.254.13", mac3, annotation(p+"kube-subnet-manager", "TRUE")), true, "not announced a tunnel yet"},
		{"no range", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = nil }), true, "no range for its pods yet (spec.podCIDRs)"},
		{"another backend", flannel("node-3", "192.168.254.13", mac3, annotation(p+"backend-type", "host-gw")), false, `backend-type is "host-gw"; only vxlan`},
		{"no address", flannel("node-3", "192.168.254.13", mac3, annotation(p+"public-ip", "")), false, "no annotation flannel.alpha.coreos.com/public-ip"},
		{"address of the other family", flannel("node-3", "192.168.254.13", mac3, annotation(p+"public-ip", "fd00:254::13")), false, `public-ip is "fd00:254::13"`},
		{"loopback", flannel("node-3", "192.168.254.13", mac3, annotation(p+"public-ip", "127.0.0.1")), false, `public-ip is "127.0.0.1"`},
		{"no JSON", flannel("node-3", "192.168.254.13", mac3, annotation(p+"backend-data", "null null")), false, `backend-data: "null null" is not like {"VNI":1`},
		{"null", flannel("node-3", "192.168.254.13", mac3, annotation(p+"backend-data", "null")), false, "backend-data: MAC address"},
		{"no MAC", flannel("node-3", "192.168.254.13", mac3, annotation(p+"backend-data", `{"VNI":1,"VtepMAC":"02:00"}`)), false, `MAC address "02:00"`},
		{"another VNI", flannel("node-3", "192.168.254.13", mac3, annotation(p+"backend-data", `{"VNI":2,"VtepMAC":"02:00:00:00:00:03"}`)), false, "VNI 2, this node has 1"},
		{"our MAC", flannel("node-3", "192.168.254.13", mac1), false, "VTEP has the address of this node's"},
		{"our address", flannel("node-3", "192.168.254.11", mac3), false, "192.168.254.11, its address, is that of this node"},
		{"a peer's address", flannel("node-3", "192.168.254.12", mac3), false, "192.168.254.12, its address, is that of node node-2"},
		{"our pods", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = ranges("10.244.0.0/16") }), false, "10.244.0.0/16 of its pods overlaps 10.244.1.0/24 of this node"},
		{"a peer's pods", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = ranges("10.244.2.0/24") }), false, "overlaps 10.244.2.0/24 of node node-2"},
		{"Services", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = ranges("10.96.3.0/24") }), false, "overlaps 10.96.0.0/16 of the Services"},
		{"address among pods", flannel("node-3", "10.244.2.3", mac3), false, "10.244.2.3, its address, lies within 10.244.2.0/24 of node node-2"},
		{"pods around a node", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = ranges("192.168.254.0/24") }), false, "192.168.254.0/24 of its pods contains 192.168.254.11, an address of this node"},
		{"an address in a range", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.3.1/24")} }), false, "10.244.3.1/24 in spec.podCIDRs is not a range"},
		{"kernel with IPv6 pods only", flannel("node-3", "192.168.254.13", mac3, func(n *object.Node) { n.PodCIDRs = ranges("fd00:10:244:3::/64") }), false, "none of the ranges of its pods"},
	} {
		t.Run(row.name, func(t *testing.T) {
			peers, left := Compile(self(), []*object.Node{row.node, flannel("node-2", "192.168.254.12", mac2)})
			if len(peers) != 1 || peers[0].Name != "node-2" {
				t.Errorf("peers %v, want node-2 alone", peers)
			}
			if len(left) != 1 || left[0].Node != "node-3" || left[0].Waits != row.waits || !strings.Contains(left[0].Why, row.why) {
				t.Errorf("left out %+v, want node-3 with %q, waits %v", left, row.why, row.waits)
			}
		})
	}
}

// A node's further addresses lead to whoever has them; what is amiss with one of them costs the peer nothing else.
func TestFurtherAddresses(t *testing.T) {
	n := flannel("node-2", "192.168.254.12", mac2, func(n *object.Node) {
		n.Addresses = addrs("192.168.254.12", "192.168.254.11", "10.244.1.7", "fe80::1", "127.0.0.1", "198.51.100.2")
	})
	peers, left := Compile(self(), []*object.Node{n})
	if len(peers) != 1 {
		t.Fatalf("peers %v, left %v", peers, left)
	}
	if diff := cmp.Diff(addrs("192.168.254.12", "198.51.100.2"), peers[0].Addresses, comparable); diff != "" {
		t.Error(diff)
	}
	if len(left) != 2 || !strings.Contains(left[0].Why, "192.168.254.11") || !strings.Contains(left[1].Why, "10.244.1.7") {
		t.Errorf("left %v, want a sentence about each of 192.168.254.11 and 10.244.1.7", left)
	}
}

func TestAnnotations(t *testing.T) {
	a := Announcement{Address: addr("192.168.254.11"), VNI: 1, MAC: mac1}
	want := map[string]string{
		"flannel.alpha.coreos.com/kube-subnet-manager": "true",
		"flannel.alpha.coreos.com/backend-type":        "vxlan",
		"flannel.alpha.coreos.com/backend-data":        `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`,
		"flannel.alpha.coreos.com/public-ip":           "192.168.254.11",
		"middleway.net/tunnel":                         "1",
	}
	if diff := cmp.Diff(want, a.Annotations(nil)); diff != "" {
		t.Error(diff)
	}
	if got := a.Annotations(map[string]string{"flannel.alpha.coreos.com/public-ip-overwrite": "203.0.113.11"})["flannel.alpha.coreos.com/public-ip"]; got != "203.0.113.11" {
		t.Errorf("public-ip %s, want that of the administrator", got)
	}
	a.Address = addr("fd00:254::11")
	got := a.Annotations(nil)
	if got["flannel.alpha.coreos.com/public-ipv6"] != "fd00:254::11" || got["flannel.alpha.coreos.com/backend-v6-data"] == "" || got["flannel.alpha.coreos.com/backend-data"] != "" {
		t.Errorf("over IPv6 %v", got)
	}
}

// flannel reads its own address back by cutting the text, not as JSON (kube.go, GetStoredMacAddresses).
func TestFlannelReadsItsMACBack(t *testing.T) {
	data := Announcement{Address: addr("192.168.254.11"), VNI: 4096, MAC: mac1}.Annotations(nil)[keyData]
	parts := strings.Split(strings.Trim(data, `"}`), `:"`)
	if len(parts) != 2 || parts[1] != mac1.String() {
		t.Errorf("flannel reads %q of %s", parts, data)
	}
}

// Who moves from flannel to middleway, or comes back after a restart, keeps the VTEP's address.
func TestStoredMAC(t *testing.T) {
	n := flannel("node-1", "192.168.254.11", mac3)
	if mac, ok := StoredMAC(n.Annotations, false); !ok || mac != mac3 {
		t.Errorf("stored %v %v, want %v", mac, ok, mac3)
	}
	for _, v6 := range []bool{false, true} {
		if mac, ok := StoredMAC(map[string]string{keyData: "{}", keyData6: ""}, v6); ok {
			t.Errorf("stored %v of nothing", mac)
		}
	}
}

func FuzzCompile(f *testing.F) {
	ok := flannel("node-2", "192.168.254.12", mac2, dual)
	text, err := json.Marshal(ok.Annotations)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), "10.244.2.0/24", "192.168.254.12")
	f.Add("{}", "fd00:10:244:2::/64", "::ffff:192.168.254.12")
	f.Fuzz(func(t *testing.T, annotations, podCIDR, address string) {
		n := &object.Node{Name: "node-2"}
		_ = json.Unmarshal([]byte(annotations), &n.Annotations)
		if r, err := netip.ParsePrefix(podCIDR); err == nil {
			n.PodCIDRs = []netip.Prefix{r}
		}
		if a, err := netip.ParseAddr(address); err == nil {
			n.Addresses = []netip.Addr{a}
		}
		peers, left := Compile(self(), []*object.Node{n})
		if len(peers) == 0 && len(left) == 0 {
			t.Error("a node is gone without a word")
		}
		for _, p := range peers {
			if p.Address.Is6() || len(p.PodCIDRs) == 0 || len(p.Addresses) == 0 || p.MAC[0]&1 != 0 {
				t.Errorf("peer %+v is not whole", p)
			}
		}
	})
}
