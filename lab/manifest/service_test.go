package manifest

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// service is a Service with lines in its spec, from line 6 on.
func service(lines ...string) string {
	return "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  " + strings.Join(lines, "\n  ") + "\n"
}

const oneEndpoint = "endpoints: [{addresses: [203.0.113.7]}]\n"

// slice is an EndpointSlice with lines at its end, from line 6 on.
func slice(lines ...string) string {
	return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\n" +
		"ports: [{name: sql, port: 5432}]\n" + strings.Join(lines, "\n") + "\n"
}

// deployment is a Deployment with lines in its spec, from line 6 on, before selector and template.
func deployment(lines ...string) string {
	return "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  " + strings.Join(append(lines,
		"selector: {matchLabels: {app: web}}", "template:", "  metadata: {labels: {app: web}}", "  spec:", "    containers:", "    - name: main", "      image: nginx"), "\n  ") + "\n"
}

func TestServiceDefaults(t *testing.T) {
	s, err := Parse("x.yaml", []byte(service("sessionAffinity: ClientIP", "ports: [{port: 80}]")))
	if err != nil {
		t.Fatal(err)
	}
	spec := s.Objects[0].(*Service).Spec
	port := spec.Ports[0]
	if spec.Type != corev1.ServiceTypeClusterIP || *spec.SessionAffinityConfig.ClientIP.TimeoutSeconds != 10800 ||
		*spec.InternalTrafficPolicy != corev1.ServiceInternalTrafficPolicyCluster || port.Protocol != corev1.ProtocolTCP || port.TargetPort.IntValue() != 80 {
		t.Errorf("got %+v", spec)
	}
}

func TestDeploymentDefaults(t *testing.T) {
	s, err := Parse("x.yaml", []byte(deployment("minReadySeconds: 0")))
	if err != nil {
		t.Fatal(err)
	}
	d := s.Objects[0].(*Deployment)
	if *d.Spec.Replicas != 1 || d.Written("spec.replicas") || !d.Written("spec.minReadySeconds") || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" ||
		d.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Errorf("got %+v", d.Spec)
	}
	p := d.Instance("web-1")
	if p.Key() != "default/web-1" || p.Labels["app"] != "web" || len(s.Pods()) != 0 {
		t.Errorf("got %+v", p)
	}
	if got, want := p.Errorf("spec.nodeName", "no").Error(), "x.yaml, line 11, spec.template.spec.nodeName: no"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestServiceErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"name", strings.Replace(service("ports: [{port: 80}]"), "name: web", "name: a.b", 1), `x.yaml, line 4, metadata.name: "a.b" is no name for a Service`},
		{"long name", strings.Replace(service("ports: [{port: 80}]"), "name: web", "name: "+strings.Repeat("a", 64), 1), "x.yaml, line 4, metadata.name:"},
		{"label", strings.Replace(service("ports: [{port: 80}]"), "name: web", `name: web
  labels: {app: "a b"}`, 1), `x.yaml, line 5, metadata.labels.app: "a b" is no value of a label`},
		{"version", strings.Replace(service("ports: [{port: 80}]"), "v1", "v2", 1), "x.yaml, line 1, apiVersion: a Service is of v1, not of v2"},
		{"no ports", service("selector: {a: b}"), "x.yaml, line 6, spec.ports: a Service needs at least one port"},
		{"unknown field", service("ports: [{prot: 80}]"), "x.yaml, line 6, spec.ports[0].prot: Kubernetes has no such field here; remove it, or see `kubectl explain service`"},
		{"selector of sets", service("selector: {matchLabels: {a: b}}"), "x.yaml, line 6, spec.selector.matchLabels: want a string, not fields"},
		{"selector", service(`selector: {"a b": c}`, "ports: [{port: 80}]"), `x.yaml, line 6, spec.selector.a b: "a b" is no key of a label`},
		{"type", service("type: Cluster", "ports: [{port: 80}]"), `x.yaml, line 6, spec.type: "Cluster" is none; want ClusterIP, NodePort, LoadBalancer or ExternalName`},
		{"port", service("ports: [{port: 70000}]"), "x.yaml, line 6, spec.ports[0].port: 70000 is no port; want 1 to 65535"},
		{"no port", service("ports: [{name: http}]"), "x.yaml, line 6, spec.ports[0].port: 0 is no port"},
		{"protocol", service("ports: [{port: 80, protocol: HTTP}]"), `x.yaml, line 6, spec.ports[0].protocol: "HTTP" is none; want TCP, UDP or SCTP`},
		{"targetPort", service("ports: [{port: 80, targetPort: 70000}]"), "x.yaml, line 6, spec.ports[0].targetPort: 70000 is no port"},
		{"named targetPort", service("ports: [{port: 80, targetPort: Http}]"), `x.yaml, line 6, spec.ports[0].targetPort: "Http" is no name for a port`},
		{"port's name", service("ports: [{port: 80, name: Http}]"), `x.yaml, line 6, spec.ports[0].name: "Http" is no name for a port`},
		{"several without names", service("ports: [{port: 80, name: a}, {port: 81}]"), "x.yaml, line 6, spec.ports[1].name: several ports need names"},
		{"a name twice", service("ports: [{port: 80, name: a}, {port: 81, name: a}]"), `x.yaml, line 6, spec.ports[1].name: "a" is the name of ports[0] already`},
		{"a port twice", service("ports: [{port: 80, name: a}, {port: 80, name: b}]"), "x.yaml, line 6, spec.ports[1].port: TCP 80 is ports[0] already"},
		{"nodePort of ClusterIP", service("ports: [{port: 80, nodePort: 30080}]"), "x.yaml, line 6, spec.ports[0].nodePort: type ClusterIP has none"},
		{"nodePort", service("type: NodePort", "ports: [{port: 80, nodePort: 80}]"), "x.yaml, line 7, spec.ports[0].nodePort: 80 is no node port; want 30000 to 32767"},
		{"nodePort twice", service("type: NodePort", "ports: [{port: 80, name: a, nodePort: 30080}, {port: 81, name: b, nodePort: 30080}]"), "x.yaml, line 7, spec.ports[1].nodePort: TCP 30080 is that of ports[0] already"},
		{"clusterIP", service("clusterIP: here", "ports: [{port: 80}]"), `x.yaml, line 6, spec.clusterIP: "here" is no IP address; leave it out`},
		{"clusterIP, mapped", service(`clusterIP: "::ffff:10.96.0.7"`, "ports: [{port: 80}]"), "x.yaml, line 6, spec.clusterIP:"},
		{"clusterIP, leading zero", service("clusterIP: 10.96.0.07", "ports: [{port: 80}]"), "x.yaml, line 6, spec.clusterIP:"},
		{"clusterIPs alone", service("clusterIPs: [10.96.0.7]", "ports: [{port: 80}]"), "x.yaml, line 6, spec.clusterIPs: clusterIP is missing"},
		{"clusterIPs differ", service("clusterIP: 10.96.0.7", "clusterIPs: [10.96.0.8]", "ports: [{port: 80}]"), "x.yaml, line 7, spec.clusterIPs[0]:"},
		{"two of a family", service("clusterIP: 10.96.0.7", "clusterIPs: [10.96.0.7, 10.96.0.8]", "ports: [{port: 80}]"), "x.yaml, line 7, spec.clusterIPs[1]: 10.96.0.8 is of IPv4 too"},
		{"None beside another", service("clusterIP: None", `clusterIPs: [None, "fd00::1"]`, "ports: [{port: 80}]"), "x.yaml, line 7, spec.clusterIPs: None stands alone"},
		{"headless NodePort", service("type: NodePort", "clusterIP: None", "ports: [{port: 80}]"), "x.yaml, line 7, spec.clusterIP: type NodePort has an address"},
		{"family", service("ipFamilies: [IP]", "ports: [{port: 80}]"), `x.yaml, line 6, spec.ipFamilies[0]: "IP" is none; want IPv4 or IPv6`},
		{"family twice", service("ipFamilies: [IPv4, IPv4]", "ports: [{port: 80}]"), "x.yaml, line 6, spec.ipFamilies[1]: IPv4 is there twice"},
		{"family of another address", service("ipFamilies: [IPv6]", "clusterIP: 10.96.0.7", "ports: [{port: 80}]"), "x.yaml, line 7, spec.clusterIP: 10.96.0.7 is of IPv4, and ipFamilies[0] says IPv6"},
		{"policy", service("ipFamilyPolicy: Both", "ports: [{port: 80}]"), `x.yaml, line 6, spec.ipFamilyPolicy: "Both" is none`},
		{"single stack of two", service("ipFamilyPolicy: SingleStack", "ipFamilies: [IPv4, IPv6]", "ports: [{port: 80}]"), "x.yaml, line 6, spec.ipFamilyPolicy: SingleStack is of one family"},
		{"no external name", service("type: ExternalName"), "x.yaml, line 6, spec.externalName: type ExternalName wants the name"},
		{"external name", service("type: ExternalName", "externalName: a_b"), `x.yaml, line 7, spec.externalName: "a_b" is no name`},
		{"external name and address", service("type: ExternalName", "externalName: a.b", "clusterIP: 10.96.0.7"), "x.yaml, line 8, spec.clusterIP: type ExternalName has no address"},
		{"external name and families", service("type: ExternalName", "externalName: a.b", "ipFamilies: [IPv4]"), "x.yaml, line 8, spec.ipFamilies: type ExternalName"},
		{"affinity", service("sessionAffinity: Yes", "ports: [{port: 80}]"), "x.yaml, line 6, spec.sessionAffinity:"},
		{"affinity's time", service("sessionAffinity: ClientIP", "sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}", "ports: [{port: 80}]"), "x.yaml, line 7, spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0: want 1 to 86400"},
		{"affinity's time without it", service("sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}", "ports: [{port: 80}]"), "x.yaml, line 6, spec.sessionAffinityConfig: it is about"},
		{"internal policy", service("internalTrafficPolicy: Near", "ports: [{port: 80}]"), `x.yaml, line 6, spec.internalTrafficPolicy: "Near" is none`},
		{"external policy", service("type: NodePort", "externalTrafficPolicy: Near", "ports: [{port: 80}]"), `x.yaml, line 7, spec.externalTrafficPolicy: "Near" is none`},
		{"external policy inside", service("externalTrafficPolicy: Local", "ports: [{port: 80}]"), "x.yaml, line 6, spec.externalTrafficPolicy: type ClusterIP has no clients outside"},
		{"external policy of external addresses", service("externalTrafficPolicy: Near", "externalIPs: [203.0.113.9]", "ports: [{port: 80}]"), `x.yaml, line 6, spec.externalTrafficPolicy: "Near" is none`},
		{"external address", service("externalIPs: [203.0.113.9, here]", "ports: [{port: 80}]"), `x.yaml, line 6, spec.externalIPs[1]: "here" is no IP address`},
		{"external address of the node itself", service("externalIPs: [127.0.0.1]", "ports: [{port: 80}]"), "x.yaml, line 6, spec.externalIPs[0]: no client outside sends to 127.0.0.1"},
		{"distribution", service("trafficDistribution: Near", "ports: [{port: 80}]"), `x.yaml, line 6, spec.trafficDistribution: "Near" is none`},
		{"load balancer's field", service("allocateLoadBalancerNodePorts: true", "ports: [{port: 80}]"), "x.yaml, line 6, spec.allocateLoadBalancerNodePorts: it is about type LoadBalancer"},

		{"slice: type", strings.Replace(slice(oneEndpoint), "addressType: IPv4", "addressType: IP", 1), `x.yaml, line 4, addressType: "IP" is none`},
		{"slice: port", strings.Replace(slice(oneEndpoint), "5432", "0", 1), "x.yaml, line 5, ports[0].port: 0 is no port"},
		{"slice: a port twice", strings.Replace(slice(oneEndpoint), "5432}", "1}, {name: sql, port: 2}", 1), `x.yaml, line 5, ports[1].name: "sql" is the name of ports[0] already`},
		{"slice: no address", slice("endpoints: [{addresses: []}]"), "x.yaml, line 6, endpoints[0].addresses: an endpoint has at least one"},
		{"slice: address", slice("endpoints: [{addresses: [db]}]"), `x.yaml, line 6, endpoints[0].addresses[0]: "db" is no IP address`},
		{"slice: family", slice(`endpoints: [{addresses: ["2001:db8::1"]}]`), "x.yaml, line 6, endpoints[0].addresses[0]: 2001:db8::1 is of IPv6, and addressType is IPv4"},
		{"slice: loopback", slice("endpoints: [{addresses: [127.0.0.1]}]"), "x.yaml, line 6, endpoints[0].addresses[0]: 127.0.0.1 cannot be reached"},
		{"slice: host name", slice("endpoints: [{addresses: [10.0.0.1], hostname: A}]"), "x.yaml, line 6, endpoints[0].hostname:"},

		{"deployment: no selector", strings.Replace(deployment(), "selector: {matchLabels: {app: web}}", "replicas: 1", 1), "x.yaml, line 6, spec.selector: say which pods are the Deployment's"},
		{"deployment: other labels", strings.Replace(deployment(), "labels: {app: web}}", "labels: {app: shop}}", 1), "x.yaml, line 8, spec.template.metadata.labels: the selector, app=web, does not choose these pods"},
		{"deployment: template", deployment("replicas: 2") + "        command: []\n        imagee: x\n", "x.yaml, line 15, spec.template.spec.containers[0].imagee: Kubernetes has no such field here"},
		{"deployment: container", strings.Replace(deployment(), "name: main", "name: M", 1), `x.yaml, line 11, spec.template.spec.containers[0].name: "M" is no name`},
		{"deployment: restart policy", deployment() + "      restartPolicy: Never\n", "x.yaml, line 13, spec.template.spec.restartPolicy: pods of a Deployment start again"},
		{"deployment: replicas", deployment("replicas: -1"), "x.yaml, line 6, spec.replicas: -1 is less than 0"},
		{"deployment: strategy", deployment("strategy: {type: Slowly}"), `x.yaml, line 6, spec.strategy.type: "Slowly" is none`},
		{"deployment: recreate", deployment("strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}"), "x.yaml, line 6, spec.strategy.rollingUpdate: type Recreate has none"},
		{"deployment: nothing moves", deployment("strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}"), "x.yaml, line 6, spec.strategy.rollingUpdate.maxUnavailable: 0, as maxSurge is"},
		{"deployment: surge", deployment("strategy: {rollingUpdate: {maxSurge: some}}"), "x.yaml, line 6, spec.strategy.rollingUpdate.maxSurge:"},
		{"deployment: all and more", deployment("strategy: {rollingUpdate: {maxUnavailable: 101%}}"), "x.yaml, line 6, spec.strategy.rollingUpdate.maxUnavailable: 101% is more than all"},
		{"deployment: deadline", deployment("progressDeadlineSeconds: 5", "minReadySeconds: 5"), "x.yaml, line 6, spec.progressDeadlineSeconds: 5 is not more than minReadySeconds"},
		{"deployment: old version", strings.Replace(deployment(), "apps/v1", "extensions/v1beta1", 1), "x.yaml, line 1, apiVersion: a Deployment is of apps/v1, not of extensions/v1beta1"},
		{"namespace: within another", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  namespace: b\n", "x.yaml, line 5, metadata.namespace: a namespace lies in none"},
		{"a slip in a group's kind", "apiVersion: apps/v1\nkind: Deploymnt\n", "x.yaml, line 2, kind: Kubernetes has no Deploymnt in apps/v1"},
		{"a kind in the plural", "apiVersion: v1\nkind: Services\n", "x.yaml, line 2, kind: Kubernetes has no Services in v1; write Service for a Service, of v1"},
		{"pod's port", web + "    ports: [{name: Http, containerPort: 80}]\n", `x.yaml, line 10, spec.containers[0].ports[0].name: "Http" is no name for a port`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
		})
	}
}

// What is right in Kubernetes is right here, and what is otherwise here is told.
func TestServiceWarnings(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"service", service("ports: [{port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}]", "trafficDistribution: PreferSameNode"), nil},
		{"a name that begins with a digit", strings.Replace(service("ports: [{port: 80}]"), "name: web", "name: 1-web", 1), nil},
		{"ports of two protocols", service("ports: [{name: a, port: 53, protocol: UDP}, {name: b, port: 53}]"), nil},
		{"headless without ports", service("clusterIP: None"), nil},
		{"external name with a dot", service("type: ExternalName", "externalName: db.example.org."), nil},
		{"node port", service("type: NodePort", "externalTrafficPolicy: Local", "ports: [{port: 80, nodePort: 30080}]"), nil},
		{"load balancer", service("ports: [{port: 80}]", "type: LoadBalancer", "loadBalancerIP: 203.0.113.9"), []string{"x.yaml, line 7: type LoadBalancer: no load balancer gives it an address"}},
		{"node port of SCTP", service("type: NodePort", "ports: [{port: 80, name: a}, {port: 80, name: b, protocol: SCTP}]"), []string{"x.yaml, line 7: spec.ports[1].protocol of SCTP: clients outside are served over TCP and UDP"}},
		{"SCTP inside", service("ports: [{port: 80, protocol: SCTP}]"), nil},
		{"external addresses", service("ports: [{port: 80}]", "externalIPs: [203.0.113.9]", "externalTrafficPolicy: Local"), nil},
		{"slice", slice(oneEndpoint), nil},
		{"slice of nobody", strings.Replace(slice(oneEndpoint), "kubernetes.io/service-name", "app", 1), []string{"x.yaml, line 1: the endpoints are for no Service"}},
		{"slice of names", strings.NewReplacer("IPv4", "FQDN", "203.0.113.7", "db.example.org").Replace(slice(oneEndpoint)), nil},
		{"deployment", deployment("strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}"), nil},
		{"deployment: what pods lack too", deployment("replicas: 1") + "        tty: true\n---\n" + edited("name: web", "name: other") + "    tty: true\n", []string{"line 14: spec.template.spec.containers.tty is not honoured here"}},
		{"deployment: grace", deployment("replicas: 1") + "      terminationGracePeriodSeconds: 90\n", []string{"x.yaml, line 14: spec.template.spec.terminationGracePeriodSeconds of 90 is cut to 60"}},
		{"namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {a: b}}\n", nil},
		{"other workloads", "apiVersion: apps/v1\nkind: StatefulSet\n---\napiVersion: batch/v1\nkind: CronJob\n", []string{"kind StatefulSet is left out: a real cluster runs it", "kind CronJob is left out: a real cluster"}},
		{"other kinds", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n---\napiVersion: example.org/v1\nkind: Shop\n", []string{"kind NetworkPolicy is left out: every pod reaches", "kind Shop is left out: the playground runs Pods, Deployments,"}},
		{"lists", "apiVersion: v1\nkind: ServiceList\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(service("ports: [{port: 80}]")), "\n", "\n  ") + "\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("x.yaml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Warnings) != len(tt.want) {
				t.Fatalf("got warnings %q", s.Warnings)
			}
			for i, want := range tt.want {
				if !strings.Contains(s.Warnings[i], want) {
					t.Errorf("got %q, want %q", s.Warnings[i], want)
				}
			}
		})
	}
}
