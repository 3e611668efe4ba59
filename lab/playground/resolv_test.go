package playground

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/lab/tool"
)

// podWith returns a pod with further lines of its spec.
func podWith(t *testing.T, lines ...string) *manifest.Pod {
	t.Helper()
	return parse(t, sleeperWith(lines...)).Pods()[0]
}

func sleeperWith(lines ...string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: prod}\nspec:\n  containers: [{name: main, command: [sleep, \"1000\"]}]\n  " +
		strings.Join(lines, "\n  ") + "\n"
}

func TestPodResolver(t *testing.T) {
	machine := tool.ParseResolvConf("# made by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2\ndomain old.example\nsearch corp.example cluster.local\noptions timeout:1 rotate\nnameserver\n")
	const cluster = "search prod.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n"
	const own = "search corp.example cluster.local\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:1 rotate\n"
	for _, tt := range []struct {
		name, spec, want string
	}{
		{"default", "", cluster},
		{"ClusterFirst", "dnsPolicy: ClusterFirst", cluster},
		{"host network", "hostNetwork: true", own},
		{"ClusterFirstWithHostNet", "dnsPolicy: ClusterFirstWithHostNet\n  hostNetwork: true", cluster},
		{"Default", "dnsPolicy: Default", own},
		{"None", "dnsPolicy: None\n  dnsConfig: {nameservers: [192.0.2.9, \"2001:db8::9\"], searches: [a.example, b.example, a.example], options: [{name: ndots, value: \"2\"}, {name: edns0}]}",
			"search a.example b.example\nnameserver 192.0.2.9\nnameserver 2001:db8::9\noptions ndots:2 edns0\n"},
		{"more", "dnsConfig: {nameservers: [10.96.0.10, 192.0.2.9], searches: [svc.cluster.local, a.example], options: [{name: ndots, value: \"2\"}, {name: use-vc}]}",
			"search prod.svc.cluster.local svc.cluster.local cluster.local corp.example a.example\nnameserver 10.96.0.10\nnameserver 192.0.2.9\noptions ndots:2 use-vc\n"},
		{"at most three servers", "dnsPolicy: Default\n  dnsConfig: {nameservers: [192.0.2.3, 192.0.2.4]}",
			"search corp.example cluster.local\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions timeout:1 rotate\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := podWith(t, tt.spec)
			if got := podResolver(&m.Spec, m.Namespace, machine).String(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	spec := corev1.PodSpec{DNSPolicy: corev1.DNSDefault}
	if got := podResolver(&spec, "prod", tool.ParseResolvConf("")).String(); got != "" {
		t.Errorf("without a file of the machine: got %q", got)
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 62) + ".b"
	for _, tt := range []struct {
		spec string
		want names
	}{
		{"", names{"web", "web", ""}},
		{"hostname: front", names{"front", "front", ""}},
		{"hostNetwork: true\n  hostname: front", names{"node-1", "node-1", ""}},
		{"hostnameOverride: other.example", names{"other.example", "other.example", ""}},
		{"subdomain: sub", names{"web", "web", "sub.prod.svc.cluster.local"}},
		{"subdomain: sub\n  setHostnameAsFQDN: true", names{"web.sub.prod.svc.cluster.local", "web", "sub.prod.svc.cluster.local"}},
		{"setHostnameAsFQDN: true", names{"web", "web", ""}},
	} {
		if got, err := namesOf(podWith(t, tt.spec), "node-1"); got != tt.want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", tt.spec, got, err, tt.want)
		}
	}
	m := podWith(t)
	m.Name = long
	if got, err := namesOf(m, ""); got.host != strings.Repeat("a", 62) || err != nil {
		t.Errorf("got %+v, %v, want it cut, without a dot at its end", got, err)
	}
	m = podWith(t, "subdomain: "+strings.Repeat("s", 63)+"\n  setHostnameAsFQDN: true")
	if _, err := namesOf(m, ""); err == nil || !strings.Contains(err.Error(), "x.yaml, line 7, spec.setHostnameAsFQDN: web.sss") {
		t.Errorf("got %v", err)
	}
}

func TestHosts(t *testing.T) {
	m := podWith(t, "subdomain: sub", "hostAliases: [{ip: 192.0.2.7, hostnames: [db, db.example]}]")
	n, err := namesOf(m, "")
	if err != nil {
		t.Fatal(err)
	}
	const aliases = "\n# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example\n"
	got := hostsOf(addrs("10.244.1.2", "fd00:10:244:1::2"), n, m.Spec.HostAliases)
	want := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
		"10.244.1.2\tweb.sub.prod.svc.cluster.local\tweb\nfd00:10:244:1::2\tweb.sub.prod.svc.cluster.local\tweb\n" + aliases
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := hostsOf(addrs("10.244.1.2"), names{"web", "web", ""}, nil); !strings.HasSuffix(got, "\n10.244.1.2\tweb\n") {
		t.Errorf("got\n%s", got)
	}
	if got, want := nodeHosts("127.0.0.1 localhost\n", m.Spec.HostAliases), "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"+aliases; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}
