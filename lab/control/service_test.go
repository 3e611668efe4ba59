package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// svc returns a Service with fields of its spec.
func svc(name string, lines ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  ports: [{port: 80}]\n", name) + strings.Join(append([]string{""}, lines...), "\n  ") + "\n"
}

func TestClusterIPs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string // addresses, families, policy; or the error
	}{
		{"by default", nil, "[10.96.228.211] [IPv4] SingleStack"},
		{"written", []string{"clusterIP: 10.96.7.7"}, "[10.96.7.7] [IPv4] SingleStack"},
		{"written, IPv6", []string{"clusterIP: fd00:10:96::77"}, "[fd00:10:96::77] [IPv6] SingleStack"},
		{"IPv6", []string{"ipFamilies: [IPv6]"}, "[fd00:10:96::e4d3] [IPv6] SingleStack"},
		{"both", []string{"ipFamilyPolicy: PreferDualStack"}, "[10.96.228.211 fd00:10:96::e4d3] [IPv4 IPv6] PreferDualStack"},
		{"both, the other way", []string{"ipFamilies: [IPv6, IPv4]"}, "[fd00:10:96::e4d3 10.96.228.211] [IPv6 IPv4] RequireDualStack"},
		{"both, one written", []string{"ipFamilyPolicy: RequireDualStack", "clusterIP: 10.96.7.7"}, "[10.96.7.7 fd00:10:96::e4d3] [IPv4 IPv6] RequireDualStack"},
		{"both written", []string{"clusterIP: 10.96.7.7", "clusterIPs: [10.96.7.7, \"fd00:10:96::7\"]"}, "[10.96.7.7 fd00:10:96::7] [IPv4 IPv6] RequireDualStack"},
		{"headless", []string{"clusterIP: None", "selector: {a: b}"}, "[None] [IPv4] SingleStack"},
		{"headless without selector", []string{"clusterIP: None"}, "[None] [IPv4 IPv6] RequireDualStack"},
		{"ExternalName", []string{"type: ExternalName", "externalName: db.example.org"}, "[] []"},
		{"another's", []string{"clusterIP: 10.96.0.10"}, "x.yaml, line 7, spec.clusterIP: 10.96.0.10 is the address of Service kube-system/kube-dns already; choose another one, or leave it out"},
		{"out of range", []string{"clusterIP: 10.97.0.1"}, "x.yaml, line 7, spec.clusterIP: 10.97.0.1 is none of the cluster's range for Services, 10.96.0.0/16; choose one there, or leave it out"},
		{"the network's own", []string{"clusterIP: 10.96.0.0"}, "x.yaml, line 7, spec.clusterIP: 10.96.0.0 is none of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			if got := c.follow(svc("web", tt.lines...)); len(got) > 0 {
				if !strings.HasPrefix(got[0], tt.want) {
					t.Errorf("got  %s\nwant %s", got[0], tt.want)
				}
				return
			}
			spec := of[*corev1.Service](c, Services, "web")[0].Spec
			got := fmt.Sprint(spec.ClusterIPs, " ", spec.IPFamilies)
			if spec.IPFamilyPolicy != nil {
				got += " " + string(*spec.IPFamilyPolicy)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if ips := spec.ClusterIPs; len(ips) > 0 && spec.ClusterIP != ips[0] {
				t.Errorf("clusterIP is %s", spec.ClusterIP)
			}
		})
	}
}

// A Service's changes: what it keeps, and what an API server would refuse.
func TestServiceChanges(t *testing.T) {
	const keeps = "10.96.228.211"
	for _, tt := range []struct {
		name          string
		before, after []string
		want          string // clusterIP, type, node port; or the error
	}{
		{"ports", nil, []string{"sessionAffinity: ClientIP"}, keeps + " ClusterIP 0"},
		{"to NodePort", nil, []string{"type: NodePort"}, keeps + " NodePort 32753"},
		{"from NodePort", []string{"type: NodePort"}, nil, keeps + " ClusterIP 0"},
		{"NodePort to LoadBalancer", []string{"type: NodePort", "ports: [{port: 80, nodePort: 31234}]"}, []string{"type: LoadBalancer"}, keeps + " LoadBalancer 31234"},
		{"without node ports", nil, []string{"type: LoadBalancer", "allocateLoadBalancerNodePorts: false"}, keeps + " LoadBalancer 0"},
		{"to ExternalName", nil, []string{"type: ExternalName", "externalName: a.b"}, " ExternalName 0"},
		{"from ExternalName", []string{"type: ExternalName", "externalName: a.b"}, nil, keeps + " ClusterIP 0"},
		{"from ExternalName, written", []string{"type: ExternalName", "externalName: a.b"}, []string{"clusterIP: 10.96.7.7"}, "10.96.7.7 ClusterIP 0"},
		{"a written address is left out", []string{"clusterIP: 10.96.7.7"}, nil, "10.96.7.7 ClusterIP 0"},
		{"another address", nil, []string{"clusterIP: 10.96.7.7"}, "spec.clusterIP: it is " + keeps + ", and stays so while the Service lives"},
		{"to headless", nil, []string{"clusterIP: None"}, "spec.clusterIP: it is " + keeps},
		{"headless stays", []string{"clusterIP: None"}, nil, "None ClusterIP 0"},
		{"another family", nil, []string{"ipFamilies: [IPv6]"}, "spec.ipFamilies[0]: it is IPv4"},
		{"a second family", nil, []string{"ipFamilyPolicy: PreferDualStack"}, keeps + " ClusterIP 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			text := func(lines []string) string {
				s := svc("web", lines...)
				if len(lines) > 1 && strings.HasPrefix(lines[1], "ports:") {
					s = strings.Replace(s, "  ports: [{port: 80}]\n", "", 1)
				}
				return s
			}
			if got := c.follow(text(tt.before)); len(got) > 0 {
				t.Fatal(got)
			}
			uid := of[*corev1.Service](c, Services, "web")[0].UID
			if got := c.follow(text(tt.after)); len(got) > 0 {
				if !strings.Contains(got[0], tt.want) {
					t.Errorf("got %s, want %s", got[0], tt.want)
				}
				return
			}
			s := of[*corev1.Service](c, Services, "web")[0]
			if got := fmt.Sprint(s.Spec.ClusterIP, " ", s.Spec.Type, " ", s.Spec.Ports[0].NodePort); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if s.UID != uid {
				t.Error("it is another Service")
			}
		})
	}
}

// Node ports: those that are written, those that a port had, one for all protocols of a number, and else free ones.
func TestNodePorts(t *testing.T) {
	const tcp, udp = "{name: tcp, port: 53", "{name: udp, protocol: UDP, port: 53"
	for _, tt := range []struct {
		name          string
		before, after string // ports; "" for no Service
		want          string // node ports; or the error
	}{
		{"none is written", "", tcp + "}, {name: b, port: 80}", "[32753 32754]"},
		{"all are written", "", tcp + ", nodePort: 30080}, {name: b, port: 80, nodePort: 32767}", "[30080 32767]"},
		{"one for both protocols", "", tcp + "}, " + udp + "}", "[32753 32753]"},
		{"that of the other protocol is written", "", udp + "}, " + tcp + ", nodePort: 30053}", "[30053 30053]"},
		{"both are written", "", tcp + ", nodePort: 30053}, " + udp + ", nodePort: 30054}", "[30053 30054]"},
		{"that of the other protocol is a third one's", "", tcp + ", nodePort: 30053}, " + udp + "}, {name: c, protocol: UDP, port: 80, nodePort: 30053}", "[30053 32753 30053]"},
		{"kept", tcp + "}, {name: b, port: 80}", "{name: b, port: 80}, " + tcp + "}", "[32754 32753]"},
		{"kept, though it was written before", tcp + ", nodePort: 30053}", tcp + "}", "[30053]"},
		{"another one", tcp + ", nodePort: 30053}", tcp + ", nodePort: 30054}", "[30054]"},
		{"a new port takes an old one's", tcp + ", nodePort: 30053}", tcp + "}, {name: b, port: 80, nodePort: 30053}", "[32753 30053]"},
		{"another number", tcp + ", nodePort: 30053}", "{name: tcp, port: 54}", "[32753]"},
		{"another's", "", tcp + ", nodePort: 31999}", "x.yaml, line 6, spec.ports[0].nodePort: 31999 is that of Service default/other already; choose another one, or leave it out"},
		{"another's, over another protocol", "", udp + ", nodePort: 31999}", "x.yaml, line 6, spec.ports[0].nodePort: 31999 is that of Service default/other already"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			service := func(name, ports string) string {
				return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  type: NodePort\n  ports: [%s]\n", name, ports)
			}
			other := service("other", "{port: 1, nodePort: 31999}")
			c.follow(other)
			for _, ports := range []string{tt.before, tt.after} {
				if ports == "" {
					continue
				}
				if got := c.follow(all(service("web", ports), other)); len(got) > 0 {
					if !strings.HasPrefix(got[0], tt.want) {
						t.Errorf("got  %s\nwant %s", got[0], tt.want)
					}
					return
				}
			}
			var got []int32
			for _, p := range of[*corev1.Service](c, Services, "web")[0].Spec.Ports {
				got = append(got, p.NodePort)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

// Those that ask for no number get one of the upper band, as long as there is one.
func TestNodePortBand(t *testing.T) {
	a := newAllocator(nil)
	for i := range manifest.LastNodePort - manifest.FirstNodePort + 1 {
		number, err := a.pickPort(name{Name: fmt.Sprint(i)}, nil)
		upper := i < manifest.LastNodePort-manifest.FirstNodePort+1-nodePortBand
		if _, taken := a.ports[number]; err != nil || taken || number > manifest.LastNodePort || (number >= manifest.FirstNodePort+nodePortBand) != upper {
			t.Fatalf("number %d is %d, %v", i, number, err)
		}
		a.ports[number] = name{Name: "x"}
	}
	if number, err := a.pickPort(name{Name: "web"}, nil); err == nil {
		t.Errorf("got %d, though none is free", number)
	}
}

// An address is free again when its Service is gone, and no two have one.
func TestAddressesAreShared(t *testing.T) {
	c := newCluster(t)
	if got := c.follow(all(svc("a", "clusterIP: 10.96.7.7"), svc("b", "clusterIP: 10.96.7.7"))); len(got) != 1 || !strings.Contains(got[0], "10.96.7.7 is the address of Service default/a already") {
		t.Errorf("got %q", got)
	}
	if got := c.follow(svc("b", "clusterIP: 10.96.7.7")); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	// In one go an address passes from one Service to another: Check, which sees one file at a time, has nothing against it.
	heir, err := manifest.Parse("x.yaml", []byte(svc("c", "clusterIP: 10.96.7.7")))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(heir.Objects[0]); err != nil {
		t.Errorf("check: %v", err)
	}
	if got := c.follow(svc("c", "clusterIP: 10.96.7.7")); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	if got := c.follow(all(svc("c", "type: NodePort", "clusterIP: 10.96.7.7"), strings.Replace(svc("d", "type: NodePort"), "port: 80}", "port: 80, nodePort: 30111}", 1),
		strings.Replace(svc("e", "type: NodePort"), "port: 80}", "port: 80, nodePort: 30111}", 1))); len(got) != 1 || !strings.Contains(got[0], "spec.ports[0].nodePort: 30111 is that of Service default/d already") {
		t.Errorf("got %q", got)
	}
	var many []string
	for i := range 500 {
		many = append(many, svc(fmt.Sprintf("s%d", i), "ipFamilyPolicy: PreferDualStack", "type: NodePort"))
	}
	if got := c.follow(all(many...)); len(got) != 0 {
		t.Fatal(got)
	}
	seen := map[string]bool{}
	for _, s := range of[*corev1.Service](c, Services) {
		for _, taken := range append(s.Spec.ClusterIPs, fmt.Sprint(s.Spec.Ports[0].NodePort)) {
			if seen[taken] && taken != "0" {
				t.Errorf("%s twice", taken)
			}
			seen[taken] = true
		}
	}
}

func TestEndpoints(t *testing.T) {
	c := newCluster(t)
	c.follow(all(webService, webPod, strings.ReplaceAll(webPod, "name: web,", "name: web2,"), svc("other", "selector: {app: none}"),
		svc("both", "selector: {app: web}", "ipFamilyPolicy: PreferDualStack", "publishNotReadyAddresses: true"), svc("bare")))
	check := func(step, service string, family discoveryv1.AddressType, want ...string) {
		t.Helper()
		got := c.endpointsOf(service, family)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s has %q, want %q", step, service, got, want)
		}
	}
	check("no pod runs", "web", discoveryv1.AddressTypeIPv4)
	c.unfit = "web2"
	c.settle()
	check("one is not ready", "web", discoveryv1.AddressTypeIPv4, "10.244.1.2 RS", "10.244.2.3 ")
	check("one is not ready", "both", discoveryv1.AddressTypeIPv6, "fd00:10:244:1::2 RS", "fd00:10:244:2::3 R")
	check("one is not ready", "other", discoveryv1.AddressTypeIPv4)
	if got := len(of[*discoveryv1.EndpointSlice](c, EndpointSlices)); got != 4 { // an empty one for other, none for bare
		t.Errorf("%d slices", got)
	}
	c.slow = true
	c.follow(all(webService, webPod))
	check("one is to go", "web", discoveryv1.AddressTypeIPv4, "10.244.1.2 RS", "10.244.2.3 T")
	c.slow = false
	c.settle()
	check("it has gone", "web", discoveryv1.AddressTypeIPv4, "10.244.1.2 RS")
	slice := of[*discoveryv1.EndpointSlice](c, EndpointSlices)[0]
	e := slice.Endpoints[0]
	if *slice.Ports[0].Port != 80 || *e.NodeName != "node-1" || *e.Zone != "a" || e.TargetRef.Name != "web" || slice.Generation < 2 || slice.OwnerReferences[0].Kind != "Service" {
		t.Errorf("got %+v", slice)
	}
	c.follow(webPod)
	c.settle()
	if left := of[*discoveryv1.EndpointSlice](c, EndpointSlices); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// Hints are those of Kubernetes' own code.
func TestHints(t *testing.T) {
	c := newCluster(t)
	c.follow(all(webDeployment, svc("near", "selector: {app: web}", "trafficDistribution: PreferSameZone"), svc("node", "selector: {app: web}", "trafficDistribution: PreferSameNode"),
		strings.Replace(svc("auto", "selector: {app: web}"), "{name: auto}", "{name: auto, annotations: {service.kubernetes.io/topology-mode: Auto}}", 1)))
	c.settle()
	for _, s := range of[*discoveryv1.EndpointSlice](c, EndpointSlices) {
		for _, e := range s.Endpoints {
			switch {
			case e.Hints == nil || len(e.Hints.ForZones) != 1 || e.Hints.ForZones[0].Name != *e.Zone:
				t.Errorf("%s: hints %v for zone %s", s.Name, e.Hints, *e.Zone)
			case s.Labels[discoveryv1.LabelServiceName] == "node" && e.Hints.ForNodes[0].Name != *e.NodeName:
				t.Errorf("%s: hints %v for %s", s.Name, e.Hints, *e.NodeName)
			}
		}
	}
}

// A person's own slices are beside those of the control plane.
func TestOwnSlices(t *testing.T) {
	c := newCluster(t)
	slice := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, labels: {kubernetes.io/service-name: db}}\n" +
		"addressType: IPv4\nports: [{name: sql, port: 5432}]\nendpoints: [{addresses: [203.0.113.7]}]\n"
	c.follow(all(svc("db"), slice))
	if got := c.endpointsOf("db", discoveryv1.AddressTypeIPv4); !slices.Equal(got, []string{"203.0.113.7 "}) {
		t.Errorf("got %q", got)
	}
	if got := c.follow(all(svc("db"), strings.NewReplacer("IPv4", "IPv6", "203.0.113.7", `"2001:db8::7"`).Replace(slice))); len(got) != 1 || !strings.Contains(got[0], "addressType: it is IPv4") {
		t.Errorf("got %q", got)
	}
	c.follow(slice)
	if got := len(of[*discoveryv1.EndpointSlice](c, EndpointSlices)); got != 1 {
		t.Errorf("%d slices are left", got)
	}
}
