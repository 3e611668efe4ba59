package inspect

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRules(t *testing.T) {
	for _, c := range []struct {
		name, program, text string
		want                []string
	}{
		{name: "nothing", program: "nft"},
		{name: "what listing alone makes", program: "nft", text: `
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
}`},
		{name: "nft, without what counts", program: "nft", text: `
table inet mine {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.0.0/16 counter packets 7 bytes 420 masquerade
	}
}`, want: []string{"nft: inet mine: chain post", "nft: inet mine: post: ip saddr 10.244.0.0/16 counter masquerade"}},
		{name: "iptables", program: "iptables-save", text: `# Generated
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
COMMIT`, want: []string{"iptables-save: nat: chain KUBE-SERVICES", "iptables-save: nat: -A PREROUTING -j KUBE-SERVICES"}},
		{name: "a policy", program: "iptables-save", text: "*filter\n:FORWARD DROP [0:0]\nCOMMIT", want: []string{"iptables-save: filter: chain FORWARD"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, rules(c.program, c.text)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestServices(t *testing.T) {
	text := "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight\nTCP  0A600001:01BB rr\n"
	if diff := cmp.Diff([]string{"ipvs: TCP 0A600001:01BB rr"}, services(text)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCompare(t *testing.T) {
	birth := Kernel{Devices: []string{"eth0 veth", "lo device"}, Rules: []string{"nft: a: b: c"}}
	now := Kernel{
		Devices: []string{"cni0 bridge", "eth0 veth", "flannel.1 vxlan", "lo device", "mw0 tuntap"},
		Rules:   []string{"nft: a: b: c", "iptables-save: filter: -A KUBE-FIREWALL -j DROP", "ipvs: TCP"},
	}
	want := []Finding{
		{What: "device cni0 bridge"}, {What: "device flannel.1 vxlan"},
		{What: "iptables-save: filter: -A KUBE-FIREWALL -j DROP", Kubelet: true}, {What: "ipvs: TCP"},
	}
	if diff := cmp.Diff(want, Compare(birth, now)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
