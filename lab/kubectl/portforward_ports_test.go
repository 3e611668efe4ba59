package kubectl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// served is a pod with ports of both protocols, and a Service for it.
func served() (*corev1.Pod, *corev1.Service) {
	pod := &corev1.Pod{}
	pod.Name = "web-1"
	pod.Spec.Containers = []corev1.Container{
		{Name: "web", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}, {ContainerPort: 53, Protocol: "UDP"}}},
		{Name: "dns", Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 5353, Protocol: "UDP"}, {Name: "dns-tcp", ContainerPort: 5353, Protocol: "TCP"}}},
	}
	service := &corev1.Service{}
	service.Name = "web"
	service.Spec.ClusterIP = "10.96.0.7"
	service.Spec.Ports = []corev1.ServicePort{
		{Name: "http", Port: 80, Protocol: "TCP", TargetPort: intstr.FromString("http")},
		{Name: "admin", Port: 9000, Protocol: "TCP", TargetPort: intstr.FromInt32(9001)},
		{Name: "plain", Port: 7000, Protocol: "TCP"},
		{Name: "dns", Port: 53, Protocol: "UDP", TargetPort: intstr.FromString("dns")},
		{Name: "both", Port: 54, Protocol: "UDP", TargetPort: intstr.FromInt32(5)},
		{Name: "both-tcp", Port: 54, Protocol: "TCP", TargetPort: intstr.FromInt32(6)},
		{Name: "lost", Port: 55, Protocol: "TCP", TargetPort: intstr.FromString("gone")},
	}
	return pod, service
}

// A row is a port as it is typed, and the pairs that it is for a pod and for its Service, or words of the error.
func TestPorts(t *testing.T) {
	pod, service := served()
	headless := service.DeepCopy()
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	pair := func(local, remote uint16) any { return []forwardedPort{{local, remote}} }
	for _, tt := range []struct {
		arg                       string
		pod, service, headlessSvc any // pairs, or words
	}{
		{"80", pair(80, 80), pair(80, 8080), pair(80, 80)},
		{"1:80", pair(1, 80), pair(1, 8080), pair(1, 80)},
		{":80", pair(0, 80), pair(0, 8080), pair(0, 80)},
		{"0:80", pair(0, 80), pair(0, 8080), pair(0, 80)},
		{"http", pair(8080, 8080), pair(80, 8080), pair(80, 80)},
		{"1:http", pair(1, 8080), pair(1, 8080), pair(1, 80)},
		{"9000", pair(9000, 9000), pair(9000, 9001), pair(9000, 9000)},
		{"7000", pair(7000, 7000), pair(7000, 7000), pair(7000, 7000)},
		{"8081", pair(8081, 8081), "Service web does not have a service port 8081", "does not have a service port 8081"},
		{"none", "Pod 'web-1' does not have a named port 'none'", "Service 'web' does not have a named port 'none'", "named port 'none'"},
		{"55", pair(55, 55), "Pod 'web-1' does not have a named port 'gone'", pair(55, 55)},
		{"53", "UDP protocol is not supported for 53", "UDP protocol is not supported for 53", "UDP protocol"},
		{"1:dns", pair(1, 5353), "UDP protocol is not supported for dns", "UDP protocol"},
		{"54", pair(54, 54), pair(54, 6), pair(54, 54)},
		{"", "remote port cannot be empty", "cannot be empty", "cannot be empty"},
		{"1:", "remote port cannot be empty", "cannot be empty", "cannot be empty"},
		{"1:2:3", "invalid port format '1:2:3'", "invalid port format", "invalid port format"},
		{"0", "error parsing remote port '0'", "error parsing remote port", "error parsing remote port"},
		{"1:65536", "error parsing remote port '65536'", "error parsing remote port", "error parsing remote port"},
		{"65536:1", "error parsing local port '65536'", "error parsing local port", "error parsing local port"},
		{"http:80", "error parsing local port 'http'", "error parsing local port", "error parsing local port"},
	} {
		for at, want := range map[string]any{"pod": tt.pod, "service": tt.service, "headless service": tt.headlessSvc} {
			t.Run(at+" "+tt.arg, func(t *testing.T) {
				wanted, err := parsePorts([]string{tt.arg})
				var got []forwardedPort
				switch {
				case err != nil:
				case at == "pod":
					got, err = portsOfPod(pod, wanted)
				case at == "service":
					got, err = portsOfService(service, pod, wanted)
				default:
					got, err = portsOfService(headless, pod, wanted)
				}
				if words, ok := want.(string); ok {
					if err == nil || !strings.Contains(err.Error(), words) {
						t.Errorf("got %v, %v; want %q", got, err, words)
					}
					return
				}
				if diff := cmp.Diff(want, any(got)); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			})
		}
	}
}

func TestParseAddresses(t *testing.T) {
	for _, tt := range []struct {
		words string
		want  string // of the addresses, or words of the error
	}{
		{"localhost", "127.0.0.1 ::1"},
		{"0.0.0.0", "0.0.0.0"},
		{"localhost,127.0.0.1,192.0.2.1", "127.0.0.1 ::1 192.0.2.1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"", " is not a valid IP"},
		{"example.org", "example.org is not a valid IP"},
	} {
		addrs, err := parseAddresses(strings.Split(tt.words, ","))
		var got []string
		for _, a := range addrs {
			got = append(got, a.host.String())
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if text := strings.Join(got, " "); text != tt.want && (err == nil || !strings.Contains(text, tt.want)) {
			t.Errorf("%q: got %q, want %q", tt.words, text, tt.want)
		}
	}
	if _, err := parseAddresses(nil); err == nil {
		t.Error("no address was accepted")
	}
}

// A port that is typed is an error, or leads to ports that there are.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80", ":80", "8080:http", "http", "0:0", "a:b:c", "+1:1", "1:-1", "99999", "4294967376:80", "1:4294967376"} {
		f.Add(s)
	}
	pod, service := served()
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePort(s)
		if err != nil {
			return
		}
		for _, ports := range [][]forwardedPort{first(portsOfPod(pod, []wantedPort{p})), first(portsOfService(service, pod, []wantedPort{p}))} {
			for _, got := range ports {
				if got.Remote == 0 || p.same && got.Local == 0 {
					t.Errorf("%q: %v", s, got)
				}
			}
		}
	})
}

func first[A, B any](a A, _ B) A { return a }
