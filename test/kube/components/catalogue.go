package components

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The versions of what is built. The go.mod files below this folder name the same.
const (
	KubernetesVersion = "v1.37.2"
	EtcdVersion       = "v3.7.3"
	ContainerdVersion = "v2.4.2"
	RuncVersion       = "v1.5.1"
	CoreDNSVersion    = "v1.15.0"
	PluginsVersion    = "v1.9.1"
	FlannelVersion    = "v0.28.10"
)

// ImagesName is the component that holds the images.
const ImagesName = "images"

// A Module is a Go module that components are built from.
type Module struct {
	Folder  string // of this package, with the go.mod and go.sum that pin it and all it requires; "" for this very module
	Path    string
	Version string // "" for this very module
}

var (
	kubernetes = Module{"kubernetes", "k8s.io/kubernetes", KubernetesVersion}
	etcd       = Module{"etcd", "go.etcd.io/etcd/server/v3", EtcdVersion}
	containerd = Module{"containerd", "github.com/containerd/containerd/v2", ContainerdVersion}
	runc       = Module{"runc", "github.com/opencontainers/runc", RuncVersion}
	coredns    = Module{"coredns", "github.com/coredns/coredns", CoreDNSVersion}
	plugins    = Module{"cniplugins", "github.com/containernetworking/plugins", PluginsVersion}
	flannel    = Module{"flannel", "github.com/flannel-io/flannel", FlannelVersion}
	own        = Module{"", "github.com/middleway-net/middleway/test/kube", ""}
)

// A Component is one program, or some that belong together, and all that decides what its bytes are.
type Component struct {
	Name     string
	Module   Module
	Packages []string          // to build; with several, each becomes a program in the folder Name
	Test     bool              // the package's tests make the program, as go test -c does
	Tags     []string          // build tags
	Values   map[string]string // what the linker sets, by variable
	Cgo      bool              // built with cgo, by a C compiler
	Without  []string          // packages that the program's main.go imports for their side effects, and that are left out
	From     []string          // components that have to be there before
	Packaged []Need            // what has to be on this machine before
}

// catalogue has the components in the order in which they are built.
var catalogue = []Component{
	{Name: "etcd", Module: etcd, Packages: []string{"go.etcd.io/etcd/server/v3"}},
	{Name: "kube-apiserver", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kube-apiserver"}, Values: kubernetesValues()},
	{Name: "kube-controller-manager", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kube-controller-manager"}, Values: kubernetesValues()},
	{Name: "kube-scheduler", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kube-scheduler"}, Values: kubernetesValues()},
	{Name: "kubectl", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kubectl"}, Values: kubernetesValues()},
	{Name: "kubelet", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kubelet"}, Values: kubernetesValues()},
	{Name: "containerd", Module: containerd, Packages: []string{"github.com/containerd/containerd/v2/cmd/containerd"}, Tags: containerdTags(), Values: containerdValues()},
	{Name: "containerd-shim-runc-v2", Module: containerd, Packages: []string{"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"}, Tags: containerdTags(), Values: containerdValues()},
	{Name: "ctr", Module: containerd, Packages: []string{"github.com/containerd/containerd/v2/cmd/ctr"}, Tags: containerdTags(), Values: containerdValues()},
	// Pods run with the profile RuntimeDefault, which needs seccomp.
	{Name: "runc", Module: runc, Packages: []string{"github.com/opencontainers/runc"}, Tags: []string{"seccomp"}, Values: map[string]string{"main.version": strings.TrimPrefix(RuncVersion, "v")}, Cgo: true,
		Packaged: []Need{{Package: "gcc", Program: "gcc"}, {Package: "pkg-config", Program: "pkg-config"}, {Package: "libseccomp-dev", File: "/usr/include/seccomp.h"}}},
	{Name: "cni", Module: plugins, Packages: pluginPackages("ipam/host-local", "ipam/static", "main/bridge", "main/host-device", "main/loopback", "main/ptp",
		"meta/bandwidth", "meta/firewall", "meta/portmap", "meta/tuning")},
	{Name: "kube-proxy", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/cmd/kube-proxy"}, Values: kubernetesValues()},
	{Name: "coredns", Module: coredns, Packages: []string{"github.com/coredns/coredns"}},
	// The module proxy does not serve what the one backend needs, and the other would need cgo.
	{Name: "flanneld", Module: flannel, Packages: []string{"github.com/flannel-io/flannel"}, Values: map[string]string{"github.com/flannel-io/flannel/pkg/version.Version": FlannelVersion},
		Without: []string{"github.com/flannel-io/flannel/pkg/backend/tencentvpc", "github.com/flannel-io/flannel/pkg/backend/udp"}},
	{Name: "pause", Module: own, Packages: []string{"github.com/middleway-net/middleway/test/kube/pause"}},
	{Name: "agnhost", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/test/images/agnhost"}},
	{Name: "regression-issue-74839", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/test/images/regression-issue-74839"}},
	{Name: "ginkgo", Module: kubernetes, Packages: []string{"github.com/onsi/ginkgo/v2/ginkgo"}},
	{Name: "e2e.test", Module: kubernetes, Packages: []string{"k8s.io/kubernetes/test/e2e"}, Test: true, Values: kubernetesValues()},
	{Name: ImagesName, Module: kubernetes, From: []string{"agnhost", "coredns", "pause", "regression-issue-74839"}, Packaged: imageNeeds},
}

// groups are names for several components.
var groups = map[string][]string{
	// What a test needs that talks to a real API server and has no nodes.
	"server": {"etcd", "kube-apiserver"},
}

// Names returns the names of all components in the order in which they are built.
func Names() []string {
	names := make([]string, len(catalogue))
	for i, c := range catalogue {
		names[i] = c.Name
	}
	return names
}

// Groups returns the names that stand for several components.
func Groups() []string { return slices.Sorted(maps.Keys(groups)) }

// choose returns the named components and those that they are made from, in the order in which they are built; all, without names.
func choose(names []string) ([]Component, error) {
	if len(names) == 0 {
		names = Names()
	}
	chosen := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if members, ok := groups[name]; ok {
			names = append(names, members...)
			continue
		}
		c, ok := find(name)
		if !ok {
			return nil, fmt.Errorf("no component is named %q: take some of %s, or %s", name, strings.Join(Names(), ", "), strings.Join(Groups(), ", "))
		}
		chosen[name] = true
		names = append(names, c.From...)
	}
	return slices.DeleteFunc(slices.Clone(catalogue), func(c Component) bool { return !chosen[c.Name] }), nil
}

func find(name string) (Component, bool) {
	i := slices.IndexFunc(catalogue, func(c Component) bool { return c.Name == name })
	if i < 0 {
		return Component{}, false
	}
	return catalogue[i], true
}

// kubernetesValues are what Kubernetes' own build sets, for e2e.test and clients compare versions. There is no commit and no date: the
// same module gives the same bytes.
func kubernetesValues() map[string]string {
	values := map[string]string{}
	_, minor, _ := strings.Cut(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		values[pkg+".gitVersion"] = KubernetesVersion
		values[pkg+".gitMajor"] = "1"
		values[pkg+".gitMinor"] = minor
		values[pkg+".gitTreeState"] = "clean"
		values[pkg+".gitCommit"] = strings.Repeat("0", 40)
		values[pkg+".buildDate"] = "1970-01-01T00:00:00Z"
	}
	return values
}

// containerdTags leave out the snapshotters that need C libraries or file systems of their own.
func containerdTags() []string { return []string{"no_btrfs", "no_devmapper", "no_zfs"} }

func containerdValues() map[string]string {
	return map[string]string{"github.com/containerd/containerd/v2/version.Version": ContainerdVersion}
}

func pluginPackages(names ...string) []string {
	for i, name := range names {
		names[i] = plugins.Path + "/plugins/" + name
	}
	return names
}
