package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// ports is a pod whose container has these ports, on line 10.
func ports(list string) string { return web + "    ports: [" + list + "]\n" }

func TestHostPorts(t *testing.T) {
	sidecar := "  initContainers: [{name: first, command: [x], ports: [{containerPort: 1, hostPort: 1}]}, {name: proxy, command: [x], restartPolicy: Always, ports: [{containerPort: 53, protocol: UDP, hostPort: 53, hostIP: 192.168.254.11}]}]\n"
	for _, tt := range []struct {
		name, text string
		want       []HostPort
	}{
		{"none", ports("{containerPort: 80}"), nil},
		{"one", ports("{containerPort: 80}, {containerPort: 443, hostPort: 8443}"), []HostPort{{"spec.containers[0].ports[1].hostPort", "", corev1.ProtocolTCP, 8443, 443}}},
		{"an init container's count while it goes on", web + sidecar, []HostPort{{"spec.initContainers[1].ports[0].hostPort", "192.168.254.11", corev1.ProtocolUDP, 53, 53}}},
		{"hostNetwork", strings.Replace(ports("{containerPort: 80}, {containerPort: 443, hostPort: 443}"), "spec:", "spec:\n  hostNetwork: true", 1), []HostPort{
			{"spec.containers[0].ports[0].containerPort", "", corev1.ProtocolTCP, 80, 80}, {"spec.containers[0].ports[1].hostPort", "", corev1.ProtocolTCP, 443, 443},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("x.yaml", []byte(tt.text))
			if err != nil || len(s.Warnings) > 0 {
				t.Fatal(err, s.Warnings)
			}
			if diff := cmp.Diff(tt.want, s.Pods()[0].HostPorts()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestHostPortErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no port", ports("{containerPort: 80, hostPort: 70000}"), "x.yaml, line 10, spec.containers[0].ports[0].hostPort: 70000 is no port; want 1 to 65535"},
		{"no address", ports("{containerPort: 80, hostPort: 80, hostIP: eth0}"), `x.yaml, line 10, spec.containers[0].ports[0].hostIP: "eth0" is no IP address; leave it out`},
		{"a mapped address", ports(`{containerPort: 80, hostPort: 80, hostIP: "::ffff:127.0.0.1"}`), "x.yaml, line 10, spec.containers[0].ports[0].hostIP:"},
		{"hostNetwork", strings.Replace(ports("{containerPort: 80, hostPort: 8080}"), "spec:", "spec:\n  hostNetwork: true", 1), "x.yaml, line 11, spec.containers[0].ports[0].hostPort: with hostNetwork it is containerPort, which is 80"},
		{"twice", ports("{containerPort: 80, hostPort: 8080}, {containerPort: 81, hostPort: 8080, hostIP: 127.0.0.1}"), "x.yaml, line 10, spec.containers[0].ports[1].hostPort: TCP 8080 is that of spec.containers[0].ports[0].hostPort already"},
		{"in another container", ports("{containerPort: 80, hostPort: 8080}") + "  - name: b\n    command: [x]\n    ports: [{containerPort: 80, hostPort: 8080}]\n", "x.yaml, line 13, spec.containers[1].ports[0].hostPort: TCP 8080 is that of"},
		{"in a template", deployment("replicas: 1") + "        ports: [{containerPort: 80, hostPort: -1}]\n", "x.yaml, line 14, spec.template.spec.containers[0].ports[0].hostPort: -1 is no port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
		})
	}
}

// Two addresses of a node, or two protocols, may have one port.
func TestHostPortsBesideEachOther(t *testing.T) {
	for _, list := range []string{
		"{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}, {containerPort: 81, hostPort: 8080, hostIP: 192.168.254.11}",
		"{containerPort: 80, hostPort: 8080}, {containerPort: 80, hostPort: 8080, protocol: UDP}",
	} {
		if _, err := Parse("x.yaml", []byte(ports(list))); err != nil {
			t.Error(err)
		}
	}
	s, err := Parse("x.yaml", []byte(deployment("replicas: 1")+"        ports: [{containerPort: 80, hostPort: 80, protocol: SCTP}]\n"))
	if err != nil || len(s.Warnings) != 1 || s.Warnings[0] != "x.yaml, line 14: spec.template.spec.containers[0].ports[0].hostPort of SCTP: clients outside are served over TCP and UDP" {
		t.Errorf("got %v, %q", err, s.Warnings)
	}
}
