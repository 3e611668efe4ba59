package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const web = `apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: example.org/web
    command: [serve]
`

// edited returns web with a piece replaced.
func edited(from, to string) string { return strings.Replace(web, from, to, 1) }

func names(s *Set) (all []string) {
	for _, p := range s.Pods() {
		all = append(all, p.Key())
	}
	return all
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
		warnings   []string // pieces, in order
	}{
		{"pod", web, []string{"default/web"}, nil},
		{"nothing", "", nil, nil},
		{"documents", web + "---\n# nothing\n---\n" + edited("name: web", "name: db\n  namespace: prod"), []string{"default/web", "prod/db"}, nil},
		{"JSON", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"main","command":["true"]}]}}`,
			[]string{"default/web"}, nil},
		{"list", "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(web), "\n", "\n  "), []string{"default/web"}, nil},
		{"empty list", "apiVersion: v1\nkind: List\n", nil, nil},
		{"other kinds, once each", strings.Repeat("---\napiVersion: v1\nkind: ConfigMap\n", 2) + "---\napiVersion: apps/v1\nkind: StatefulSet\n", nil,
			[]string{"x.yaml, line 2: kind ConfigMap is left out", "x.yaml, line 8: kind StatefulSet is left out"}},
		{"fields that are not honoured, once each", edited("spec:", "spec:\n  affinity: {nodeAffinity: {}}\n  volumes: [{name: v, emptyDir: {}}, {name: w, configMap: {}}, {name: x, configMap: {name: c}}]") +
			"---\n" + edited("name: web", "name: db") + "    resources: {limits: {cpu: 500m}}\n  affinity: {podAffinity: {}}\n",
			[]string{"default/web", "default/db"}, []string{"x.yaml, line 6: spec.affinity is not honoured", "line 7: spec.volumes.configMap is not", "line 22: spec.containers.resources is not"}},
		{"what a server wrote", edited("name: web", "name: web\n  uid: x\n  creationTimestamp: 2026-01-02T03:04:05Z\n  managedFields: [{manager: m}]") +
			"status: {phase: Running}\n", []string{"default/web"}, nil},
		{"what a server filled in", edited("name: web", "name: web\n  generateName: web-\n  ownerReferences: [{kind: ReplicaSet, name: web}]") +
			"    resources: {}\n    terminationMessagePath: /dev/termination-log\n    terminationMessagePolicy: File\n" +
			"    volumeMounts: [{name: kube-api-access-x, mountPath: /var/run/secrets}]\n" +
			"  dnsPolicy: ClusterFirst\n  serviceAccount: default\n  serviceAccountName: default\n  securityContext: {}\n  priority: 0\n" +
			"  preemptionPolicy: PreemptLowerPriority\n  schedulerName: default-scheduler\n  enableServiceLinks: true\n" +
			"  tolerations: [{key: node.kubernetes.io/not-ready}]\n  volumes: [{name: kube-api-access-x, projected: {sources: []}}]\n" +
			"  terminationGracePeriodSeconds: 30\n", []string{"default/web"}, nil},
		{"what somebody wished for", web + "  hostPID: true\n  volumes: [{name: kube-api-access-x, projected: {sources: []}}, {name: data, hostPath: {path: /x}}]\n  terminationGracePeriodSeconds: 61\n", []string{"default/web"},
			[]string{"spec.hostPID is not", "spec.volumes.hostPath is not", "line 12: spec.terminationGracePeriodSeconds of 61 is cut to 60"}},
		{"what a probe waits for", web + "    livenessProbe: {grpc: {port: 1}, terminationGracePeriodSeconds: 61}\n    startupProbe: {grpc: {port: 1}, terminationGracePeriodSeconds: 60}\n", []string{"default/web"},
			[]string{"line 10: spec.containers[0].livenessProbe.terminationGracePeriodSeconds of 61 is cut to 60"}},
		{"empty field", edited("spec:", "spec:\n  tolerations:\n  nodeName: ~"), []string{"default/web"}, nil},
		{"anchors and merges", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n" +
			"  - &a\n    name: a\n    command: &c [serve]\n  - <<: *a\n    name: b\n    args: *c\n", []string{"default/web"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("x.yaml", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, names(s)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if len(s.Warnings) != len(tt.warnings) {
				t.Fatalf("got warnings %q, want %d", s.Warnings, len(tt.warnings))
			}
			for i, w := range tt.warnings {
				if !strings.Contains(s.Warnings[i], w) {
					t.Errorf("got warning %q, want %q", s.Warnings[i], w)
				}
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string // the whole beginning of the error
	}{
		{"no YAML", "a: [", "x.yaml, line 1: this is no YAML or JSON"},
		{"no YAML, later", web + "\tx", "x.yaml, line 10: this is no YAML or JSON"},
		{"not text", "a: b\nc: \x00\xff", "x.yaml, line 2: this is no YAML or JSON"},
		{"Latin-1", "a: b\n\nc: \xe4\n", "x.yaml, line 3: this is no YAML or JSON"},
		{"no object", "- a", "x.yaml, line 1: this is no Kubernetes object"},
		{"no kind", "apiVersion: v1", "x.yaml, line 1, kind: an object says its kind"},
		{"no version", "kind: Pod", "x.yaml, line 1, apiVersion: an object says its version"},
		{"misspelt kind", edited("kind: Pod", "kind: pod"), "x.yaml, line 2, kind: Kubernetes has no pod in v1; write Pod for a pod"},
		{"another kind, misspelt", edited("kind: Pod", "kind: Servce"), "x.yaml, line 2, kind: Kubernetes has no Servce in v1; the playground runs Pods, Deployments, Services, EndpointSlices and Namespaces"},
		{"wrong version", edited("v1", "v2"), "x.yaml, line 1, apiVersion: a Pod is of v1, not of v2"},
		{"no name", edited("name: web", "labels: {}"), "x.yaml, line 4, metadata.name: a pod needs a name"},
		{"no metadata", edited("metadata:\n  name: web\n", ""), "x.yaml, line 1, metadata.name: a pod needs a name"},
		{"bad name", edited("name: web", "name: Web_1"), `x.yaml, line 4, metadata.name: "Web_1" is no name for a pod; take at most 253 small letters, digits and, between them, dashes and dots`},
		{"bad namespace", edited("name: web", "name: web\n  namespace: a.b"), `x.yaml, line 5, metadata.namespace: "a.b" is no name`},
		{"no spec", edited("spec:", "spec: {}\n#"), "x.yaml"},
		{"no containers", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {}\n", "x.yaml, line 4, spec.containers: a pod needs at least one"},
		{"unknown field", edited("image:", "imagee:"), "x.yaml, line 8, spec.containers[0].imagee: Kubernetes has no such field here"},
		{"unknown field that is nearly one", edited("command:", "Command:"), "x.yaml, line 9, spec.containers[0].Command: Kubernetes has no such field here; did you mean command?"},
		{"unknown field at the top", web + "specs: {}\n", "x.yaml, line 10, specs: Kubernetes has no such field here; did you mean spec?"},
		{"string for list", edited("[serve]", "serve"), `x.yaml, line 9, spec.containers[0].command: want a list, as in [a, b] or lines with a dash, not "serve"`},
		{"number for string", edited("name: web", "name: 80"), `x.yaml, line 4, metadata.name: want a string, not 80; write it in quotes: "80"`},
		{"list for fields", edited("  name: web", "- name: web"), "x.yaml, line 4, metadata: want fields, as in name: value, not a list"},
		{"string for boolean", edited("spec:", "spec:\n  hostNetwork: \"true\""), `x.yaml, line 6, spec.hostNetwork: want true or false, not "true"`},
		{"string for number", edited("spec:", "spec:\n  terminationGracePeriodSeconds: soon"), `x.yaml, line 6, spec.terminationGracePeriodSeconds: want a whole number, not "soon"`},
		{"large number", edited("spec:", "spec:\n  terminationGracePeriodSeconds: 99999999999999999999"), "x.yaml, line 6, spec.terminationGracePeriodSeconds:"},
		{"negative grace period", edited("spec:", "spec:\n  terminationGracePeriodSeconds: -1"), "x.yaml, line 6, spec.terminationGracePeriodSeconds: -1 is less"},
		{"no quantity", web + "    resources: {limits: {cpu: many}}\n", `x.yaml, line 10, spec.containers[0].resources.limits.cpu: "many" is no quantity`},
		{"empty entry", edited("[serve]", "[serve, ~]"), "x.yaml, line 9, spec.containers[0].command[1]: an entry of the list is empty"},
		{"field twice", edited("spec:", "spec:\n  nodeName: a\n  nodeName: b"), "x.yaml, line 7, spec.nodeName: the field is there twice"},
		{"number as a field", edited("spec:", "spec:\n  1: a"), "x.yaml, line 6, spec: a field's name is a string"},
		{"restart policy", edited("spec:", "spec:\n  restartPolicy: Sometimes"), `x.yaml, line 6, spec.restartPolicy: "Sometimes" is none; want Always, OnFailure or Never`},
		{"no command", edited("    command: [serve]\n", "    args: [x]\n"), "x.yaml, line 7, spec.containers[0].command: container main has no command, and images are not run here"},
		{"no command and a strange image", strings.Replace(edited("    command: [serve]\n", ""), "example.org/web", `"NGINX"`, 1), `x.yaml, line 8, spec.containers[0].image: "NGINX" is no name of an image`},
		{"no command and another image of that name", strings.Replace(edited("    command: [serve]\n", ""), "example.org/web", "example.org/web/nginx", 1), "x.yaml, line 7, spec.containers[0].command: container main has no command"},
		{"a subcommand without a stand-in", strings.Replace(edited("command: [serve]", "args: [dns-suffix]"), "example.org/web", "registry.k8s.io/e2e-test-images/agnhost:2.47", 1), "x.yaml, line 9, spec.containers[0].args[0]: agnhost dns-suffix has no stand-in here; it has pause, netexec,"},
		{"empty argument for a command", strings.Replace(edited("command: [serve]", `args: [""]`), "example.org/web", "busybox", 1), "x.yaml, line 9, spec.containers[0].args[0]: the command is empty"},
		{"empty command", edited("[serve]", `[""]`), "x.yaml, line 9, spec.containers[0].command[0]: the command is empty"},
		{"NUL", edited("[serve]", `["a\0b"]`), "x.yaml, line 9, spec.containers[0].command[0]: a NUL byte"},
		{"no container name", edited("name: main", "stdin: true"), "x.yaml, line 7, spec.containers[0].name: a container needs a name"},
		{"container name", edited("name: main", "name: a.b"), `x.yaml, line 7, spec.containers[0].name: "a.b" is no name`},
		{"init container of the same name", web + "  initContainers: [{name: main, command: [x]}]\n", `x.yaml, line 7, spec.containers[0].name: "main" is the name of initContainers[0] already`},
		{"init container without a name", web + "  initContainers: [{command: [x]}]\n", "x.yaml, line 10, spec.initContainers[0].name: a container needs a name"},
		{"probe of an init container", web + "  initContainers: [{name: i, command: [x], livenessProbe: {exec: {command: [x]}}}]\n", "x.yaml, line 10, spec.initContainers[0].livenessProbe: an init container has none"},
		{"container's restart policy", web + "    restartPolicy: Maybe\n", `x.yaml, line 10, spec.containers[0].restartPolicy: "Maybe" is none`},
		{"probe without a way", web + "    livenessProbe: {periodSeconds: 1}\n", "x.yaml, line 10, spec.containers[0].livenessProbe: want one of exec, httpGet, tcpSocket and grpc; there are 0"},
		{"probe with two ways", web + "    livenessProbe: {tcpSocket: {port: 1}, exec: {command: [x]}}\n", "x.yaml, line 10, spec.containers[0].livenessProbe: want one of exec, httpGet, tcpSocket and grpc; there are 2"},
		{"probe's threshold", web + "    startupProbe: {tcpSocket: {port: 1}, successThreshold: 2}\n", "x.yaml, line 10, spec.containers[0].startupProbe.successThreshold: 2: want 1"},
		{"probe's period", web + "    readinessProbe: {tcpSocket: {port: 1}, periodSeconds: -2}\n", "x.yaml, line 10, spec.containers[0].readinessProbe.periodSeconds: -2 is less than 0"},
		{"probe's grace", web + "    livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 0}\n", "x.yaml, line 10, spec.containers[0].livenessProbe.terminationGracePeriodSeconds: 0: want more than 0"},
		{"readiness ends nothing", web + "    readinessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 3}\n", "x.yaml, line 10, spec.containers[0].readinessProbe.terminationGracePeriodSeconds: a readinessProbe ends nothing"},
		{"probe's port", web + "    livenessProbe: {tcpSocket: {port: 70000}}\n", "x.yaml, line 10, spec.containers[0].livenessProbe.tcpSocket.port: 70000 is no port"},
		{"probe's named port", web + "    livenessProbe: {httpGet: {port: http}}\n", `x.yaml, line 10, spec.containers[0].livenessProbe.httpGet.port: the container has no port named "http"`},
		{"probe's scheme", web + "    livenessProbe: {httpGet: {port: 80, scheme: http}}\n", `x.yaml, line 10, spec.containers[0].livenessProbe.httpGet.scheme: "http" is none`},
		{"probe's header", web + "    livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: \"a b\", value: c}]}}\n", `x.yaml, line 10, spec.containers[0].livenessProbe.httpGet.httpHeaders[0].name: "a b" is no name`},
		{"probe's command", web + "    livenessProbe: {exec: {command: []}}\n", "x.yaml, line 10, spec.containers[0].livenessProbe.exec.command: say what to run"},
		{"hook's sleep", web + "    lifecycle: {preStop: {sleep: {seconds: -1}}}\n", "x.yaml, line 10, spec.containers[0].lifecycle.preStop.sleep.seconds: -1 is less than 0"},
		{"empty hook", web + "    lifecycle: {postStart: {}}\n", "x.yaml, line 10, spec.containers[0].lifecycle.postStart: want one of exec, httpGet and sleep"},
		{"host name", web + "  hostname: Web\n", `x.yaml, line 10, spec.hostname: "Web" is no name for a host`},
		{"two host names", web + "  hostnameOverride: a\n  setHostnameAsFQDN: true\n", "x.yaml, line 10, spec.hostnameOverride: setHostnameAsFQDN says another name"},
		{"alias' address", web + "  hostAliases: [{ip: 10.0.0, hostnames: [a]}]\n", `x.yaml, line 10, spec.hostAliases[0].ip: "10.0.0" is no IP address`},
		{"alias' name", web + "  hostAliases: [{ip: 10.0.0.1, hostnames: [a_b]}]\n", `x.yaml, line 10, spec.hostAliases[0].hostnames[0]: "a_b" is no name`},
		{"DNS policy", web + "  dnsPolicy: Cluster\n", `x.yaml, line 10, spec.dnsPolicy: "Cluster" is none`},
		{"no name server", web + "  dnsPolicy: None\n", "x.yaml, line 6, spec.dnsConfig.nameservers: dnsPolicy None wants at least one name server"},
		{"name server", web + "  dnsConfig: {nameservers: [dns]}\n", `x.yaml, line 10, spec.dnsConfig.nameservers[0]: "dns" is no IP address`},
		{"name servers", web + "  dnsConfig: {nameservers: [1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1]}\n", "x.yaml, line 10, spec.dnsConfig.nameservers: 4 are more than 3"},
		{"search domain", web + "  dnsConfig: {searches: [\"a b\"]}\n", `x.yaml, line 10, spec.dnsConfig.searches[0]: "a b" is no domain`},
		{"resolver's option", web + "  dnsConfig: {options: [{name: \"\", value: \"1\"}]}\n", "x.yaml, line 10, spec.dnsConfig.options[0].name: an option needs a name"},
		{"volume twice", web + "  volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]\n", `x.yaml, line 10, spec.volumes[1].name: "a" is the name of volumes[0] already`},
		{"no such volume", web + "    volumeMounts: [{name: a, mountPath: /a}]\n", `x.yaml, line 10, spec.containers[0].volumeMounts[0].name: the pod has no volume "a"`},
		{"mount's path", web + "    volumeMounts: [{name: a, mountPath: a}]\n  volumes: [{name: a, emptyDir: {}}]\n", `x.yaml, line 10, spec.containers[0].volumeMounts[0].mountPath: "a" is no absolute path`},
		{"mount on the root", web + "    volumeMounts: [{name: a, mountPath: /}]\n  volumes: [{name: a, emptyDir: {}}]\n", `x.yaml, line 10, spec.containers[0].volumeMounts[0].mountPath: nothing can be mounted at "/"`},
		{"mount twice", web + "    volumeMounts: [{name: a, mountPath: /a}, {name: a, mountPath: /a}]\n  volumes: [{name: a, emptyDir: {}}]\n", "x.yaml, line 10, spec.containers[0].volumeMounts[1].mountPath: /a is that of volumeMounts[0] already"},
		{"mount's sub-path", web + "    volumeMounts: [{name: a, mountPath: /a, subPath: ../b}]\n  volumes: [{name: a, emptyDir: {}}]\n", `x.yaml, line 10, spec.containers[0].volumeMounts[0].subPath: "../b" is no path within the volume`},
		{"container twice", web + "  - name: main\n    command: [x]\n", `x.yaml, line 10, spec.containers[1].name: "main" is the name of containers[0] already`},
		{"relative directory", web + "    workingDir: tmp\n", `x.yaml, line 10, spec.containers[0].workingDir: "tmp" is no absolute path`},
		{"variable's name", web + "    env: [{name: a=b}]\n", `x.yaml, line 10, spec.containers[0].env[0].name: "a=b" is no name for a variable`},
		{"two values", web + "    env: [{name: a, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n", "x.yaml, line 10, spec.containers[0].env[0].valueFrom: value is set too"},
		{"field path", web + "    env: [{name: a, valueFrom: {fieldRef: {fieldPath: spec.color}}}]\n", `x.yaml, line 10, spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: "spec.color" cannot be had`},
		{"pod twice", web + "---\n" + web, "x.yaml, line 14, metadata.name: default/web is the pod of x.yaml, line 1, already"},
		{"items", "apiVersion: v1\nkind: List\nitems: {}\n", "x.yaml, line 3, items: want a list"},
		{"aliases of aliases", "apiVersion: v1\nkind: Pod\nmetadata:\n  annotations: &a\n    x: *a\n", "x.yaml, line 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
			if e := (*Error)(nil); !errors.As(err, &e) {
				t.Errorf("got %T, want *Error", err)
			}
		})
	}
}

// A file whose aliases stand for billions of nodes is refused, and soon.
func TestParseBomb(t *testing.T) {
	list := "x: &a [z]\n"
	for i := 'b'; i < 'n'; i++ {
		list += "y" + string(i) + ": &" + string(i) + " [" + strings.Repeat("*"+string(i-1)+",", 15) + "]\n"
	}
	_, err := Parse("x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  managedFields:\n  - fieldsV1:\n      "+
		strings.ReplaceAll(list, "\n", "\n      ")+"\n"))
	if err == nil || !strings.Contains(err.Error(), "too large or nested too deeply") {
		t.Errorf("got %v", err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": edited("name: web", "name: b"), "a.yml": edited("name: web", "name: a"), "README.md": "# no manifest", "c.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(nil, dir); err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, "c.json")+", line 1, kind:") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "c.json")); err != nil {
		t.Fatal(err)
	}
	s, err := Read(strings.NewReader(web), dir, "-")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"default/a", "default/b", "default/web"}, names(s)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := s.Pods()[2].File; got != "standard input" {
		t.Errorf("got %q", got)
	}
	single := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(single, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "gone"):               "there is no such file or directory",
		t.TempDir():                              "no manifest lies in this directory",
		file("empty.yaml", ""):                   "empty.yaml: no object is in it",
		file("comment.yaml", "# nothing\n---\n"): "comment.yaml: no object is in it",
		file("others.yaml", strings.Repeat("---\napiVersion: apps/v1\nkind: StatefulSet\n", 2)+"---\napiVersion: v1\nkind: ConfigMap\n"): "others.yaml: only StatefulSet, ConfigMap is in it",
		"-": "standard input: no object is in it",
	} {
		if _, err := Read(strings.NewReader(""), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

func TestErrorf(t *testing.T) {
	s, err := Parse("x.yaml", []byte(edited("spec:", "spec:\n  nodeName: node-9")))
	if err != nil {
		t.Fatal(err)
	}
	p := s.Pods()[0]
	for field, want := range map[string]string{
		"spec.nodeName":                 "x.yaml, line 6, spec.nodeName: no",
		"spec.hostNetwork":              "x.yaml, line 6, spec.hostNetwork: no", // the first line of spec's fields
		"spec.containers[0].args[0]":    "x.yaml, line 8, spec.containers[0].args[0]: no",
		"status":                        "x.yaml, line 1, status: no",
		"spec.containers[0].command[0]": "x.yaml, line 10, spec.containers[0].command[0]: no",
	} {
		if got := p.Errorf(field, "no").Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestExpand(t *testing.T) {
	known := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":           "",
		"plain":      "plain",
		"$(A)":       "1",
		"x$(A)y$(A)": "x1y1",
		"$(B)":       "$(A)",
		"$(EMPTY)":   "",
		"$(C)":       "$(C)",
		"$$(A)":      "$(A)",
		"$$$(A)":     "$1",
		"$A ${A}":    "$A ${A}",
		"$(A":        "$(A",
		"$":          "$",
		"$$":         "$",
		"$()":        "$()",
		"$($(A))":    "$($(A))",
	} {
		if got := expand(in, known); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestCommand(t *testing.T) {
	s, err := Parse("x.yaml", []byte(edited("name: web", "name: web\n  uid: old\n  labels: {app: x}")+`    args: [$(IP), "$(URL)", $$(IP)]
    env:
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: URL, value: "http://$(IP):$(PORT)"}
    - {name: PORT, value: "80"}
    - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "spec.containers.env.valueFrom.secretKeyRef is not honoured") {
		t.Errorf("got warnings %q", s.Warnings)
	}
	p := s.Pods()[0]
	argv, env := p.Command(&p.Spec.Containers[0], Facts{UID: "new", NodeName: "node-1", PodIPs: []string{"10.244.1.2", "fd00:10:244:1::2"}})
	if diff := cmp.Diff([]string{"serve", "10.244.1.2", "http://10.244.1.2:$(PORT)", "$(IP)"}, argv); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	want := []string{"IP=10.244.1.2", "URL=http://10.244.1.2:$(PORT)", "PORT=80", "APP=x", "NODE=node-1", "ID=new"}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// Whatever is parsed is a pod that can be run, or an error with a place.
func FuzzParse(f *testing.F) {
	f.Add([]byte(web))
	f.Add([]byte(web + "---\n" + web))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]}`))
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: &a\n  <<: *a\n  name: x\n"))
	f.Add([]byte("kind: Pod\napiVersion: v1\nspec: {containers: [{resources: {limits: {cpu: 1e9}}}]}\n"))
	f.Add([]byte(service("type: NodePort", "ports: [{port: 80, nodePort: 30080, targetPort: http}]", "sessionAffinity: ClientIP")))
	f.Add([]byte(service("type: ExternalName", "externalName: a.b")))
	f.Add([]byte(service("clusterIP: 10.96.0.7", `clusterIPs: [10.96.0.7, "fd00:10:96::7"]`, "ipFamilies: [IPv4, IPv6]", "ports: [{port: 80}]")))
	f.Add([]byte(slice(`endpoints: [{addresses: [203.0.113.7], conditions: {ready: false}, hints: {forZones: [{name: a}]}}]`)))
	f.Add([]byte(deployment("replicas: 2", "strategy: {rollingUpdate: {maxSurge: 10%}}")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse("x.yaml", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x.yaml") {
				t.Errorf("an error without its place: %v", err)
			}
			return
		}
		for _, p := range s.Pods() {
			for i := range p.Spec.Containers {
				if argv, _ := p.Command(&p.Spec.Containers[i], Facts{}); len(argv) == 0 {
					t.Errorf("%s: a container without a command", p.Key())
				}
			}
			if p.Spec.RestartPolicy == corev1.RestartPolicy("") {
				t.Errorf("%s: no restart policy", p.Key())
			}
		}
	})
}

// Defaults are those of Kubernetes.
func TestDefaults(t *testing.T) {
	s, err := Parse("x.yaml", []byte(web+`    ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {port: http}}
    lifecycle: {preStop: {httpGet: {port: 80}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := s.Pods()[0]
	if len(s.Warnings) > 0 || p.Spec.DNSPolicy != corev1.DNSClusterFirst || p.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Errorf("got %q, %s, %s", s.Warnings, p.Spec.DNSPolicy, p.Spec.RestartPolicy)
	}
	c := p.Spec.Containers[0]
	probe := c.LivenessProbe
	if probe.TimeoutSeconds != 1 || probe.PeriodSeconds != 10 || probe.SuccessThreshold != 1 || probe.FailureThreshold != 3 || probe.HTTPGet.Path != "/" || probe.HTTPGet.Scheme != "HTTP" {
		t.Errorf("got %+v, %+v", probe, probe.HTTPGet)
	}
	if number, ok := PortNumber(&c, probe.HTTPGet.Port); number != 8080 || !ok {
		t.Errorf("got %d, %v", number, ok)
	}
	if c.Lifecycle.PreStop.HTTPGet.Path != "/" {
		t.Errorf("got %+v", c.Lifecycle.PreStop.HTTPGet)
	}
}
