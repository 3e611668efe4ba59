package middleway_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of our own import paths.
const module = "github.com/middleway-net/middleway"

// arrow says what the non-test files of the packages that match pkg may import of ours, and why it is so. Names are relative
// to the module. In a pattern "a/*" means what lies directly in a, "a/..." a and everything below, "..." everything.
type arrow struct {
	pkg string
	may string // patterns, separated by spaces
	why string
}

// arrows holds for each package by the first row that matches. A new package needs a row, and a new arrow or a new top-level
// folder an ADR of a few lines.
var arrows = []arrow{
	{".", "", "the root holds no code"},

	{"unixsock", "", "what all speak over unix sockets stands on it (ADR 0014)"},

	{"cmd/middleway", "node node/fdstore node/parent cni k8s/remote cluster cluster/check cluster/perf cluster/probe cluster/report lab lab/control lab/demo lab/doctor lab/kubectl lab/manifest lab/perf lab/playground lab/standin lab/tool lab/trace capture", "flags become a Config, and node or lab does the work; under its name it is the plugin"},
	{"cmd/middleway-cni", "cni", "the plugin is package cni behind skel.PluginMainFuncs"},

	{"node", "node/* k8s k8s/* stack stack/* tunnel tunnel/* cni cni/* proxy ingress unixsock capture", "node builds the parts from a Config and joins them"},
	{"node/underlay", "", "a choice among interfaces knows interfaces alone"},
	{"node/hostport", "cni/ipam stack/packet stack/service", "a pure function from leases to a service table's entries (ADR 0030)"},
	{"node/fdstore", "unixsock", "a store knows names and descriptors, not whose they are (ADR 0038)"},
	{"node/parent", "node/underlay unixsock", "a parent answers about its own interfaces (ADR 0010)"},

	{"lab", "node node/parent tunnel/vxlan k8s cni cni/netns stack/tun unixsock lab/tool", "lab surrounds whole nodes with namespaces, links and a control plane, and asks whether they answer"},
	{"lab/demo", "lab lab/doctor lab/perf lab/playground lab/tool lab/trace capture/pcapng node stack/packet tunnel/vxlan", "the demo drives a playground and draws a packet of it"},
	{"lab/doctor", "lab node node/underlay cni/link stack stack/tun stack/packet tunnel/udp tunnel/vxlan", "what is tried is what those would do"},
	{"lab/kubectl", "lab/control", "objects of the control plane as kubectl shows them, and what asks for them (ADR 0026)"},
	{"lab/logs", "", "what containers print goes from pipes to files and back"},
	{"lab/control", "lab/manifest k8s/object", "a control plane is Kubernetes' types and their controllers, no networks (ADR 0025)"},
	{"lab/manifest", "", "manifests are files and Kubernetes' types, no networks"},
	{"lab/playground", "k8s/folder lab lab/control lab/logs lab/manifest lab/tool node unixsock", "the playground is a control plane over a lab of nodes, and reads resolv.conf as the tools do (ADR 0027)"},
	{"lab/perf", "", "load generators that know only sockets, so that they measure us and the kernel alike"},
	{"lab/standin", "", "what runs in place of well-known images knows only sockets"},
	{"lab/trace", "k8s/remote lab/control lab/playground lab/tool node stack", "a packet is followed through the daemons of a playground or a cluster, which decide (ADR 0026, 0033)"},
	{"lab/tool", "", "clients and servers that know only sockets, so that they measure us and the kernel alike"},

	{"k8s", "k8s/object k8s/kept k8s/services k8s/policies k8s/nodes stack/service stack/dns", "one loop joins what the parts below compile, and hands on their tables (ADR 0022)"},
	{"k8s/folder", "k8s k8s/object", "a source brings objects into the store (ADR 0022)"},
	{"k8s/kept", "k8s/object", "a file of stripped objects (ADR 0022)"},
	{"k8s/object", "", "stripped objects are the words that k8s/* share"},
	{"k8s/services", "k8s/object stack/packet stack/service stack/dns", "a pure function from objects to service and DNS tables"},
	{"k8s/policies", "k8s/object stack/policy", "a pure function from objects to policy tables"},
	{"k8s/informers/informerstest", "", "an API server in memory knows Kubernetes' types, not who asks"},
	{"k8s/informers", "k8s k8s/object", "a source of objects fills the store (ADR 0023)"},
	{"k8s/remote/remotetest", "", "an API server in memory knows nothing of who asks it"},
	{"k8s/remote", "", "who asks daemons through an API server brings bytes to them, and knows nothing of what they say (ADR 0033)"},
	{"k8s/nodes", "k8s/object tunnel/vxlan", "a pure function from nodes to peers, and back to their annotations (ADR 0023)"},

	{"cni", "cni/* unixsock", "cni reaches the node over a small interface of its own"},
	{"cni/ipam", "", "leases know nothing but addresses"},
	{"cni/netns", "", "a thread in a namespace is a tool for many"},
	{"cni/link", "cni/netns stack/tun", "the pod's side of an attachment: its device, addresses and routes (ADR 0002)"},

	{"stack", "stack/*", "stack never imports tunnel: it declares Port, and node passes the tunnel in"},
	{"stack/packet/packettest", "stack/packet", "packets for tests are packets"},
	{"stack/packet", "", "everything on a packet's way stands on it"},
	{"stack/tap", "stack/packet", "a copy of a packet is a packet; whoever moves packets may be looked at (ADR 0015)"},
	{"stack/dns", "", "DNS is a table and a protocol, no packets"},
	{"stack/tun", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/tun/tuntest", "stack/tun stack/packet", "an in-memory device is a device"},
	{"stack/fib", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/flow", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/icmp", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/fragment", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/service", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/policy", "stack/packet", "a part of the stack knows packets, not its neighbours"},
	{"stack/netstack", "stack/packet", "a part of the stack knows packets, not its neighbours"},

	{"cluster", "", "an API server is asked in JSON, by whatever client it is given (ADR 0036)"},
	{"cluster/check", "cluster cluster/stage cluster/probe", "verdicts are made of what pods answered (ADR 0036)"},
	{"cluster/clustertest", "cluster", "an API server in memory (ADR 0036)"},
	{"cluster/perf", "cluster cluster/stage", "figures are those of tool perf in pods (ADR 0036)"},
	{"cluster/probe", "lab/tool", "questions are asked by the clients that people have (ADR 0036)"},
	{"cluster/report", "cluster cluster/stage lab/doctor node", "an archive of what an API server, a daemon and its machine tell (ADR 0036)"},
	{"cluster/stage", "cluster k8s/remote", "a namespace with pods is objects of an API server, and which pod is a node's daemon is said once (ADR 0036)"},

	{"capture", "capture/pcapng", "what was captured is shown without knowing who captured it"},
	{"capture/pcapng", "", "a pure encoder"},

	{"proxy", "stack/netstack stack/packet stack/icmp", "a proxy joins host sockets to pods, through the netstack or by packets (ADR 0028, 0032)"},
	{"ingress", "stack/netstack stack/service", "ingress is HTTP on top of the same netstack"},

	{"tunnel", "tunnel/* stack/packet stack/tap", "tunnel knows peers and packets, not what the stack does with them"},
	{"tunnel/vxlan", "", "a pure codec"},
	{"tunnel/hello", "", "a pure codec"},
	{"tunnel/udp", "stack/packet", "sockets carry buffers"},
	{"tunnel/udp/udptest", "tunnel/udp stack/packet", "an in-memory network is a network"},

	{"bench/...", "...", "benchmarks may look at everything"},
	{"test/...", "...", "tests may look at everything"},
}

// importedByNobody are the folders whose packages only their own neighbours may import, whatever a row allows.
var importedByNobody = []string{"bench", "test"}

// fences keep a third-party module, with everything below it, in its place (non-test files).
var fences = []struct{ path, place, why string }{
	{"gvisor.dev", "stack/netstack", "gVisor's types stay behind package netstack"},
	{"k8s.io", "k8s/... ingress node lab/... cluster/... test/... bench/...", "Kubernetes' types are stripped at the edge, into k8s/object; who makes objects in a cluster needs them whole"},
	{"github.com/containernetworking/cni", "cni lab/... test/... bench/...", "the CNI specification's types and codes are known in one place, and to who plays the container runtime"},
	{"golang.zx2c4.com/wireguard/tun", "stack/tun", "devices are opened in one place"},
}

// bannedNames say nothing about what a package is for.
var bannedNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "base", "manager"}

func TestLayout(t *testing.T) {
	problems, err := checkLayout(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// sourceFile is one Go file of the module.
type sourceFile struct {
	name string // relative to the root, with slashes
	text []byte
	fset *token.FileSet
	tree *ast.File
}

func (f *sourceFile) dir() string  { return path.Dir(f.name) }
func (f *sourceFile) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// line names the place of a node for a person.
func (f *sourceFile) line(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", f.name, f.fset.Position(pos).Line)
}

// checkLayout returns one sentence for each place in root that breaks a rule.
func checkLayout(root fs.FS) ([]string, error) {
	files, err := readModule(root)
	if err != nil {
		return nil, err
	}
	mod, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		return nil, err
	}
	problems := checkGoMod(string(mod))
	for _, f := range files {
		problems = slices.Concat(problems, checkFormat(f), checkTodos(f))
		if !f.isTest() {
			problems = slices.Concat(problems, checkImports(f), checkFences(f))
		}
	}
	byDir := map[string][]*sourceFile{}
	for _, f := range files {
		byDir[f.dir()] = append(byDir[f.dir()], f)
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		problems = slices.Concat(problems, checkRow(dir), checkName(dir, byDir[dir]), checkPackageComment(dir, byDir[dir]))
	}
	return problems, nil
}

// readModule parses every Go file of root but those of nested modules and of folders that go itself ignores.
func readModule(root fs.FS) ([]*sourceFile, error) {
	var files []*sourceFile
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(root, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := readFile(root, name)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

func skipped(root fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	if base := path.Base(dir); base == "testdata" || base == "bin" || base[0] == '.' || base[0] == '_' {
		return true
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err == nil
}

func readFile(root fs.FS, name string) (*sourceFile, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &sourceFile{name, text, fset, tree}, nil
}

func checkGoMod(text string) []string {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "replace" {
			return []string{"go.mod: replace: those who install by `go install module@version` could not; require a version that has what we need"}
		}
	}
	return nil
}

func checkFormat(f *sourceFile) []string {
	formatted, err := format.Source(f.text)
	if err != nil || bytes.Equal(formatted, f.text) {
		return nil // a syntax error has been reported by readFile
	}
	return []string{f.name + ": run gofmt -w on it"}
}

var (
	todo          = regexp.MustCompile(`\bTODO\b`) // as in TODO(#12)
	todoWithIssue = regexp.MustCompile(`\bTODO\b.*#[0-9]+`)
)

func checkTodos(f *sourceFile) []string {
	var problems []string
	for _, group := range f.tree.Comments {
		for _, comment := range group.List {
			for i, line := range strings.Split(comment.Text, "\n") {
				if todo.MatchString(line) && !todoWithIssue.MatchString(line) {
					at := f.fset.Position(comment.Pos()).Line + i
					problems = append(problems, fmt.Sprintf("%s:%d: a TODO names its issue, as in TODO(#12): open one, or do it now", f.name, at))
				}
			}
		}
	}
	return problems
}

func checkRow(dir string) []string {
	if _, ok := rowOf(dir); ok {
		return nil
	}
	problem := fmt.Sprintf("%s: a new package: add its row to arrows in layout_test.go, with the reason", dir)
	if folder, _, _ := strings.Cut(dir, "/"); !topFolders()[folder] {
		problem += fmt.Sprintf("; %s is a new top-level folder as well, so write an ADR (docs/adr)", folder)
	}
	return []string{problem}
}

func topFolders() map[string]bool {
	folders := map[string]bool{}
	for _, a := range arrows {
		folder, _, _ := strings.Cut(a.pkg, "/")
		folders[folder] = true
	}
	return folders
}

func rowOf(dir string) (arrow, bool) {
	for _, a := range arrows {
		if matches(a.pkg, dir) {
			return a, true
		}
	}
	return arrow{}, false
}

// matches reports whether one of the patterns, separated by spaces, matches the folder or path.
func matches(patterns, name string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(pattern string) bool {
		if pattern == "..." {
			return true
		}
		if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
			return below(prefix, name)
		}
		ok, _ := path.Match(pattern, name) // patterns are literals of this file
		return ok
	})
}

// below reports whether name is folder or lies below it.
func below(folder, name string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

func checkImports(f *sourceFile) []string {
	row, ok := rowOf(f.dir())
	if !ok {
		return nil // checkRow reports it
	}
	var problems []string
	for _, spec := range f.tree.Imports {
		target, ours := ownFolder(spec)
		if !ours || matches(row.may, target) && !fromOutside(f.dir(), target) {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: %s may not import %s (may: %s): %s; a new arrow is a row in layout_test.go and an ADR",
			f.line(spec.Pos()), f.dir(), target, orNothing(row.may), row.why))
	}
	return problems
}

// ownFolder returns the folder of an imported package of ours.
func ownFolder(spec *ast.ImportSpec) (folder string, ours bool) {
	name := importPath(spec)
	if name == module {
		return ".", true
	}
	return strings.CutPrefix(name, module+"/")
}

func importPath(spec *ast.ImportSpec) string {
	name, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
	return name
}

// fromOutside reports whether dir looks into a folder that nobody imports.
func fromOutside(dir, target string) bool {
	return slices.ContainsFunc(importedByNobody, func(folder string) bool {
		return below(folder, target) && !below(folder, dir)
	})
}

func orNothing(patterns string) string {
	if patterns == "" {
		return "nothing of ours"
	}
	return patterns
}

func checkFences(f *sourceFile) []string {
	var problems []string
	for _, spec := range f.tree.Imports {
		for _, fence := range fences {
			if below(fence.path, importPath(spec)) && !matches(fence.place, f.dir()) {
				problems = append(problems, fmt.Sprintf("%s: %s belongs only into %s: %s", f.line(spec.Pos()), importPath(spec), fence.place, fence.why))
			}
		}
	}
	return problems
}

func checkName(dir string, files []*sourceFile) []string {
	for _, name := range []string{path.Base(dir), files[0].tree.Name.Name} {
		if slices.Contains(bannedNames, strings.TrimSuffix(name, "_test")) {
			return []string{fmt.Sprintf("%s: %q says nothing about the package's job: name it after what it provides", dir, name)}
		}
	}
	return nil
}

// checkPackageComment wants one in a non-test file; in a test file only where there is no other.
func checkPackageComment(dir string, files []*sourceFile) []string {
	relevant := slices.DeleteFunc(slices.Clone(files), (*sourceFile).isTest)
	if len(relevant) == 0 {
		relevant = files
	}
	var with []string
	for _, f := range relevant {
		if f.tree.Doc.Text() != "" { // directives are no text
			with = append(with, path.Base(f.name))
		}
	}
	switch len(with) {
	case 0:
		return []string{dir + ": no package comment: say what it is and how it fits the packet's way"}
	case 1:
		return nil
	default:
		return []string{fmt.Sprintf("%s: package comments in %s: keep one", dir, strings.Join(with, ", "))}
	}
}
