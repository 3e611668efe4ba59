package manifest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/strvals"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const chart = "../chart"

// strict decodes into Kubernetes' types and refuses fields that they do not have.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// set returns values as --set gives them.
func set(t *testing.T, pairs string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := strvals.ParseInto(pairs, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// objects returns the objects of a text by kind.
func objects(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	all := map[string]runtime.Object{}
	for _, d := range Documents(text) {
		o, _, err := strict.Decode([]byte(d), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, d)
		}
		kind := o.GetObjectKind().GroupVersionKind().Kind
		if all[kind] != nil {
			t.Fatalf("two objects of kind %s", kind)
		}
		all[kind] = o
	}
	return all
}

func render(t *testing.T, pairs string) map[string]runtime.Object {
	t.Helper()
	text, err := Render(chart, set(t, pairs))
	if err != nil {
		t.Fatalf("%s: %v", pairs, err)
	}
	return objects(t, text)
}

// nodeYAML returns the daemon's configuration.
func nodeYAML(t *testing.T, all map[string]runtime.Object) (config map[string]any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(all["ConfigMap"].(*corev1.ConfigMap).Data["node.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestManifestsOfTheRepository(t *testing.T) {
	files, err := Files(chart)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("deploy/%s is not what the chart makes (make manifest):\n%s", name, diff)
		}
	}
}

func TestLint(t *testing.T) {
	for _, pairs := range []string{"", "uninstall=true", "kubeProxyReplacement=true,kubernetes.server=https://192.168.254.11:6443,services.cidrs={10.96.0.0/12}"} {
		for _, m := range lint.RunAll(chart, set(t, pairs), Namespace).Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%q: %v", pairs, m)
			}
		}
	}
}

func TestWhatIsInstalled(t *testing.T) {
	const replacing = "kubeProxyReplacement=true,kubernetes.server=https://192.168.254.11:6443,services.cidrs={10.96.0.0/12}"
	role := []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"}
	for _, c := range []struct {
		name, set string
		kinds     []string
		config    string // of which fields are looked at
		want      any
	}{
		{"defaults", "", role, "services", map[string]any{"besideKubeProxy": true}},
		{"defaults without DNS", "", role, "dns", map[string]any{"off": true}},
		{"plain", "plain=true", append([]string{"Namespace"}, role...), "kubernetes", map[string]any{"inCluster": true}},
		{"instead of kube-proxy", replacing, role, "services", map[string]any{"besideKubeProxy": false, "cidrs": []any{"10.96.0.0/12"}}},
		{"its API server", replacing, role, "kubernetes", map[string]any{"inCluster": true, "server": "https://192.168.254.11:6443"}},
		{"dual-stack", replacing + ",services.cidrs={10.96.0.0/12,fd00:10:96::/112}", role, "services",
			map[string]any{"besideKubeProxy": false, "cidrs": []any{"10.96.0.0/12", "fd00:10:96::/112"}}},
		{"DNS at the tenth address", replacing + ",dns.enabled=true", role, "dns", map[string]any{"off": false, "domain": "cluster.local"}},
		{"DNS beside kube-proxy", "dns.enabled=true,dns.addresses={10.96.0.10},dns.upstreams={192.168.254.1}", role, "dns",
			map[string]any{"off": false, "domain": "cluster.local", "addresses": []any{"10.96.0.10"}, "upstreams": []any{"192.168.254.1"}}},
		{"DNS without CoreDNS", "dns.enabled=true,dns.addresses={10.96.0.10,fd00:10:96::a},dns.service.create=true", append([]string{"Service"}, role...), "dns",
			map[string]any{"off": false, "domain": "cluster.local", "addresses": []any{"10.96.0.10", "fd00:10:96::a"}}},
		{"flannel's tunnel", "vxlan.vni=16777215,vxlan.port=4789", role, "vxlan", map[string]any{"vni": 16777215.0, "port": 4789.0}},
		{"MTU", "mtu=1400", role, "mtu", 1400.0},
		{"MTU by default", "", role, "mtu", nil},
		{"underlay", "underlay.cidr=192.168.254.0/24", role, "underlay", map[string]any{"cidr": "192.168.254.0/24"}},
		{"no egress", "egress.enabled=false", role, "egress", map[string]any{"off": true}},
		{"NodePorts", "nodePorts.addresses={primary,192.168.254.0/24}", role, "nodePorts", map[string]any{"addresses": []any{"primary", "192.168.254.0/24"}}},
		{"metrics for all", "metrics.public=true,metrics.port=9999", role, "http", ":9999"},
		{"a further field", "config.flowEntries=131072", role, "flowEntries", 131072.0},
		{"a further field in a group", "config.dns.ttl=30s", role, "dns", map[string]any{"off": true, "ttl": "30s"}},
		{"taken off", "uninstall=true", role, "runDir", "/run/middleway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := render(t, c.set)
			slices.Sort(c.kinds)
			if diff := cmp.Diff(c.kinds, slices.Sorted(maps.Keys(all))); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, nodeYAML(t, all)[c.config]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.config, diff)
			}
		})
	}
}

func TestPodSettings(t *testing.T) {
	all := render(t, strings.Join([]string{
		"image.repository=registry.example/mw", "image.tag=v1.2.3", "image.pullPolicy=Always", "image.pullSecrets[0].name=registry", "resources.limits.memory=1Gi",
		"nodeSelector.network=middleway", "tolerations[0].key=a", "tolerations[0].operator=Exists", "priorityClassName=high", "maxSurge=0", "maxUnavailable=10%", "cni.binDir=/usr/libexec/cni",
		"podAnnotations.note=x", "podLabels.team=net", "log.level=debug",
	}, ","))
	pod := all["DaemonSet"].(*appsv1.DaemonSet).Spec.Template
	node := pod.Spec.Containers[slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "node" })]
	got := map[string]any{
		"image": node.Image, "pullPolicy": string(node.ImagePullPolicy), "secret": pod.Spec.ImagePullSecrets[0].Name, "memory": node.Resources.Limits.Memory().String(),
		"selector": pod.Spec.NodeSelector["network"], "toleration": pod.Spec.Tolerations[0].Key, "priority": pod.Spec.PriorityClassName,
		"unavailable": all["DaemonSet"].(*appsv1.DaemonSet).Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(),
		"annotation":  pod.Annotations["note"], "label": pod.Labels["team"], "logs debug": slices.Contains(node.Args, "--log-level=debug"),
	}
	want := map[string]any{
		"image": "registry.example/mw:v1.2.3", "pullPolicy": "Always", "secret": "registry", "memory": "1Gi", "selector": "middleway", "toleration": "a", "priority": "high",
		"unavailable": "10%", "annotation": "x", "label": "net", "logs debug": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var plugins string
	for _, v := range pod.Spec.Volumes {
		if v.Name == "cni-bin" {
			plugins = v.HostPath.Path
		}
	}
	if plugins != "/usr/libexec/cni" {
		t.Errorf("plugins go to %q", plugins)
	}
}

// TestRights holds what the pods may do to what docs/node.md says that they need.
func TestRights(t *testing.T) {
	for _, mode := range []string{"", "uninstall=true"} {
		pod := render(t, mode)["DaemonSet"].(*appsv1.DaemonSet).Spec.Template.Spec
		if pod.HostPID || pod.HostIPC || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%q: the pod shares the host's processes, or has all system calls", mode)
		}
		added := map[string][]corev1.Capability{}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			s := c.SecurityContext
			if s.Privileged != nil && *s.Privileged || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%q: container %s has more than it needs: %+v", mode, c.Name, s)
			}
			added[c.Name] = s.Capabilities.Add
		}
		daemon := []corev1.Capability{"NET_ADMIN", "SYS_ADMIN", "NET_BIND_SERVICE", "DAC_OVERRIDE"}
		want := map[string][]corev1.Capability{"install": {"DAC_OVERRIDE"}, "fdstore": nil, "node": daemon}
		if mode != "" {
			want = map[string][]corev1.Capability{"cleanup": daemon, "node": nil}
		}
		if diff := cmp.Diff(want, added); diff != "" {
			t.Errorf("%q: capabilities (-want +got):\n%s", mode, diff)
		}
	}
}

// TestFDStore: daemon and store meet at a socket of the node, which both have, or neither knows of one.
func TestFDStore(t *testing.T) {
	for mode, want := range map[string][]string{"": {"fdstore", "node"}, "fdStore.enabled=false": {"node"}} {
		all := render(t, mode)
		socket, _ := nodeYAML(t, all)["fdStore"].(string)
		var has []string
		for _, c := range all["DaemonSet"].(*appsv1.DaemonSet).Spec.Template.Spec.Containers {
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "run" && m.MountPath == "/run/middleway" }) {
				has = append(has, c.Name)
			}
			if c.Name == "fdstore" && (len(c.Args) < 2 || c.Args[1] != socket || filepath.Dir(socket) != "/run/middleway") {
				t.Errorf("%q: the store serves %v, the daemon asks %s", mode, c.Args, socket)
			}
		}
		if (socket != "") != (len(want) == 2) || !slices.Equal(has, want) {
			t.Errorf("%q: fdStore %q, containers with the run directory %v, want %v", mode, socket, has, want)
		}
	}
}

// TestUninstallChangesOnlyPods: the selector of a DaemonSet cannot be changed, and the daemon's configuration is the cluster's.
func TestUninstallChangesOnlyPods(t *testing.T) {
	files, err := Files(chart)
	if err != nil {
		t.Fatal(err)
	}
	before, after := objects(t, files["middleway.yaml"]), objects(t, files["uninstall.yaml"])
	if got := slices.Collect(maps.Keys(after)); !slices.Equal(got, []string{"DaemonSet"}) {
		t.Fatalf("uninstall.yaml has %v; want the DaemonSet alone", got)
	}
	was, is := before["DaemonSet"].(*appsv1.DaemonSet), after["DaemonSet"].(*appsv1.DaemonSet)
	if diff := cmp.Diff(was.Spec.Selector, is.Spec.Selector); diff != "" || was.Name != is.Name || was.Namespace != is.Namespace {
		t.Errorf("another DaemonSet (-was +is):\n%s", diff)
	}
	if diff := cmp.Diff(was.Spec.Template.Spec.Volumes, is.Spec.Template.Spec.Volumes); diff != "" {
		t.Errorf("volumes (-was +is):\n%s", diff)
	}
}

// TestToFlannel: nodes with the label are cleaned by pods that the daemon's DaemonSet does not count as its own, and keep the addresses of their tunnel.
func TestToFlannel(t *testing.T) {
	text, err := Render(chart, set(t, "nodeSelector.network=middleway,toFlannel.nodeSelector.network=leaving"))
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string]*appsv1.DaemonSet{}
	for _, d := range Documents(text) {
		o, _, err := strict.Decode([]byte(d), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, d)
		}
		if set, ok := o.(*appsv1.DaemonSet); ok {
			sets[set.Name] = set
		}
	}
	daemon, leaving := sets["middleway"], sets["middleway-to-flannel"]
	if daemon == nil || leaving == nil {
		t.Fatalf("got the DaemonSets %v", slices.Sorted(maps.Keys(sets)))
	}
	for set, label := range map[*appsv1.DaemonSet]string{daemon: "middleway", leaving: "leaving"} {
		pod := set.Spec.Template
		if pod.Spec.NodeSelector["network"] != label || pod.Labels["app"] != set.Name || pod.Labels["app.kubernetes.io/name"] != set.Name || set.Spec.Selector.MatchLabels["app"] != set.Name {
			t.Errorf("%s: nodes %v, selector %v, labels %v", set.Name, pod.Spec.NodeSelector, set.Spec.Selector.MatchLabels, pod.Labels)
		}
	}
	if args := leaving.Spec.Template.Spec.InitContainers[0].Args; !slices.Contains(args, "--cleanup") || !slices.Contains(args, "--to-flannel") {
		t.Errorf("what cleans has the arguments %q", args)
	}
	if diff := cmp.Diff(daemon.Spec.Template.Spec.Volumes, leaving.Spec.Template.Spec.Volumes); diff != "" {
		t.Errorf("volumes (-daemon +what cleans):\n%s", diff)
	}
}

func TestMistakes(t *testing.T) {
	for pairs, want := range map[string]string{
		"kubeProxyReplacement=true,services.cidrs={10.96.0.0/12}":    "kubernetes.server: without kube-proxy",
		"kubeProxyReplacement=true,kubernetes.server=https://a:6443": "services.cidrs: without kube-proxy",
		"dns.enabled=true": "dns.addresses: where the DNS Service is",
		"dns.service.create=true,dns.addresses={10.96.0.10}":                      "dns.service.create:",
		"dns.service.create=true,dns.enabled=true,services.cidrs={10.96.0.0/12}":  "dns.service.create:",
		"toFlannel.nodeSelector.network=leaving":                                  "toFlannel.nodeSelector: its nodes would have the daemon too",
		"toFlannel.nodeSelector.network=middleway,nodeSelector.network=middleway": "toFlannel.nodeSelector: its nodes would have the daemon too",
		"kubeproxyreplacement=true":                                               "kubeproxyreplacement",
		"kubeProxyReplacement=maybe":                                              "kubeProxyReplacement",
		"kubernetes.server=192.168.254.11:6443":                                   "server",
		"services.cidrs={10.96.0.0}":                                              "cidrs",
		"vxlan.vni=0":                                                             "vni",
		"vxlan.port=65536":                                                        "port",
		"mtu=100":                                                                 "mtu",
		"log.level=loud":                                                          "level",
		"cni.binDir=bin":                                                          "binDir",
		"policy=true":                                                             "policy",
		"config.http=none":                                                        "config.http: this field is the chart's; set metrics.port",
		"config.runDir=/var/run/mw":                                               "config.runDir: this field is the chart's",
		"config.name=kube-1":                                                      "config.name: this field is the chart's",
		"config.cni.conflist=/etc/cni/net.d/05-mw.conflist":                       "set cni.confDir",
	} {
		if _, err := Render(chart, set(t, pairs)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", pairs, err, want)
		}
	}
}
