package components

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/middleway-net/middleway/test/kube/image"
)

// The names of the images that a cluster starts by itself, whatever e2e.test calls them. Nothing serves localhost: they are never pulled.
const (
	PauseImage   = "localhost/pause:" + KubernetesVersion
	AgnhostImage = "localhost/agnhost:" + KubernetesVersion
	CoreDNSImage = "localhost/coredns:" + CoreDNSVersion
)

// toolPrograms are what e2e.test's pods and people call in the images for tests. They stand beside busybox, which knows most of the names
// too, but not enough: its sh prefers its own applets to programs of the same name in PATH, its nc has no -v, and its wget,
// linked statically, cannot look up names beside a shared C library.
var toolPrograms = []string{"dash", "bash", "wget", "curl", "dig", "nslookup", "host", "nc", "ip", "ss", "socat", "iperf", "getent"}

// filterPrograms are what looks at the packet filters of a node.
var filterPrograms = []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore", "nft", "conntrack"}

// imageNeeds are the packages of these programs.
var imageNeeds = []Need{
	{Package: "busybox-static", Program: "busybox"},
	{Package: "dash", Program: "dash"},
	{Package: "bash", Program: "bash"},
	{Package: "wget", Program: "wget"},
	{Package: "curl", Program: "curl"},
	{Package: "bind9-dnsutils", Program: "dig"},
	{Package: "bind9-host", Program: "host"},
	{Package: "netcat-openbsd", Program: "nc"},
	{Package: "iproute2", Program: "ss"},
	{Package: "socat", Program: "socat"},
	{Package: "iperf", Program: "iperf"},
	{Package: "libc-bin", Program: "getent"},
	{Package: "iptables", Program: "iptables"},
	{Package: "nftables", Program: "nft"},
	{Package: "conntrack", Program: "conntrack"},
}

// pack writes the images into an archive below aside.
func (c Cache) pack(ctx context.Context, aside string) error {
	images, err := c.images(ctx)
	if err != nil {
		return err
	}
	name := filepath.Join(aside, "images", "images.tar")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := image.Write(f, images...); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// images puts together what is in the archive. All images for tests stand on the layer with the tools.
func (c Cache) images(ctx context.Context) ([]image.Image, error) {
	component, _ := find(ImagesName)
	dir, err := c.goCommand(ctx, component, "list", "-m", "-f", "{{.Dir}}", kubernetes.Path).Output()
	if err != nil {
		return nil, fmt.Errorf("find the sources of Kubernetes: %w", err)
	}
	sources := strings.TrimSpace(string(dir))
	manifest, err := os.ReadFile(filepath.Join(sources, "test/utils/image/manifest.go"))
	if err != nil {
		return nil, err
	}
	wanted, err := readWanted(manifest)
	if err != nil {
		return nil, err
	}
	b := imageBuilder{cache: c, sources: sources, wanted: wanted}
	pause, dns := b.program("pause"), b.program("coredns")
	tools := b.layer(tools)
	b.add(image.Image{Layers: []v1.Layer{pause}, Entrypoint: []string{"/pause"}}, []string{PauseImage}, "Pause")
	b.add(image.Image{Layers: []v1.Layer{dns}, Entrypoint: []string{"/coredns"}}, []string{CoreDNSImage})
	b.add(image.Image{Layers: []v1.Layer{tools, dns, b.layer(b.agnhost)}, Entrypoint: []string{"/agnhost"}, Command: []string{"pause"}}, []string{AgnhostImage}, "Agnhost", "AgnhostPrev")
	b.add(image.Image{Layers: []v1.Layer{tools}, Command: []string{"sh"}}, nil, "BusyBox", "GlibcDnsTesting")
	b.add(image.Image{Layers: []v1.Layer{tools, b.layer(website)}, Entrypoint: []string{"/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/website"}}, nil, "Nginx", "NginxNew")
	b.add(image.Image{Layers: []v1.Layer{tools, b.layer(filters)}, Command: []string{"sh"}}, nil, "DistrolessIptables")
	b.add(image.Image{Layers: []v1.Layer{b.program("regression-issue-74839")}, Entrypoint: []string{"/regression-issue-74839"}}, nil, "RegressionIssue74839")
	return b.images, b.err
}

// An imageBuilder puts images together until the first error, which it keeps.
type imageBuilder struct {
	cache   Cache
	sources string // of the module k8s.io/kubernetes
	wanted  wanted
	images  []image.Image
	err     error
}

// add adds an image under some names and those that e2e.test has for some constants.
func (b *imageBuilder) add(i image.Image, names []string, ids ...string) {
	more, err := b.wanted.names(ids...)
	if b.err == nil {
		b.err = err
	}
	i.Names = append(names, more...)
	b.images = append(b.images, i)
}

// layer makes a layer of what fill puts into a tree.
func (b *imageBuilder) layer(fill func(*image.Tree) error) v1.Layer {
	if b.err != nil {
		return nil
	}
	t := new(image.Tree)
	if b.err = fill(t); b.err != nil {
		return nil
	}
	var l v1.Layer
	l, b.err = t.Layer()
	return l
}

// program makes a layer of one program of the cache.
func (b *imageBuilder) program(name string) v1.Layer {
	return b.layer(func(t *image.Tree) error { return t.File("/"+name, b.cache.Bin(name)) })
}

// tools fills the layer below all images for tests.
func tools(t *image.Tree) error {
	for _, dir := range []string{"/etc", "/home", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr/bin", "/usr/local/bin", "/var/log", "/var/run"} {
		t.Dir(dir, 0o755)
	}
	t.Dir("/tmp", os.ModeSticky|0o777)
	busybox, err := findProgram("busybox")
	if err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask busybox for its applets: %w", err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		t.Link("/bin/"+applet, "busybox")
	}
	if err := programs(t, append([]string{"busybox"}, toolPrograms...)); err != nil {
		return err
	}
	t.Link("/bin/sh", "dash")
	t.Link("/usr/bin/env", "/bin/env")
	// Kubernetes' agnhost has this user and group, and a test that asks for them.
	t.Text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n")
	t.Text("/etc/group", "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")
	t.Text("/etc/nsswitch.conf", "hosts: files dns\n")
	return nil
}

func programs(t *image.Tree, names []string) error {
	for _, name := range names {
		path, err := findProgram(name)
		if err != nil {
			return err
		}
		if err := t.Program(path); err != nil {
			return err
		}
	}
	return nil
}

// agnhost fills the layer of Kubernetes' program for tests, under the names and with the files that tests ask for.
func (b *imageBuilder) agnhost(t *image.Tree) error {
	t.Link("/agnhost-2", "agnhost")
	t.Dir("/uploads", 0o755)
	for name, from := range map[string]string{
		"/agnhost":       b.cache.Bin("agnhost"),
		"/localhost.crt": filepath.Join(b.sources, "test/images/agnhost/porter/localhost.crt"),
		"/localhost.key": filepath.Join(b.sources, "test/images/agnhost/porter/localhost.key"),
	} {
		if err := t.File(name, from); err != nil {
			return err
		}
	}
	return nil
}

// website fills the layer of what answers in nginx's place.
func website(t *image.Tree) error {
	t.Text("/website/index.html", "<html><title>Welcome to nginx!</title></html>\n")
	return nil
}

// filters fills the layer of the programs for packet filters, and of the extensions that iptables loads by name.
func filters(t *image.Tree) error {
	if err := programs(t, filterPrograms); err != nil {
		return err
	}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil {
		return err
	}
	for _, path := range extensions {
		if err := t.Loaded(path, path); err != nil {
			return err
		}
	}
	return nil
}
