package components

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range catalogue {
		if seen[c.Name] || groups[c.Name] != nil {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		for _, name := range c.From {
			if !seen[name] {
				t.Errorf("%s is made from %s, which is not built before", c.Name, name)
			}
		}
	}
	for group, names := range groups {
		for _, name := range names {
			if !seen[name] {
				t.Errorf("group %s has %s, which is no component", group, name)
			}
		}
	}
}

// goMod is what go mod edit -json shows of a go.mod.
type goMod struct {
	Require []struct{ Path, Version string }
	Tool    []struct{ Path string }
}

// A module's go.sum covers what its go.mod names as tools, so everything we build has to be one.
func TestModules(t *testing.T) {
	source := findSource()
	for _, c := range catalogue {
		if c.Module == own {
			continue
		}
		text, err := exec.Command("go", "mod", "edit", "-json", source+"/"+c.Module.Folder+"/go.mod").Output()
		if err != nil {
			t.Fatal(err)
		}
		var mod goMod
		if err := json.Unmarshal(text, &mod); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(mod.Require, struct{ Path, Version string }{c.Module.Path, c.Module.Version}) {
			t.Errorf("%s/go.mod requires another version of %s than %s", c.Module.Folder, c.Module.Path, c.Module.Version)
		}
		for _, pkg := range c.Packages {
			if !slices.Contains(mod.Tool, struct{ Path string }{pkg}) {
				t.Errorf("%s/go.mod has no tool %s", c.Module.Folder, pkg)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	for _, row := range []struct {
		names string
		want  string
		err   string
	}{
		{names: "server", want: "etcd kube-apiserver"},
		{names: "kubelet etcd", want: "etcd kubelet"},
		{names: "images", want: "coredns pause agnhost regression-issue-74839 images"},
		{names: "", want: strings.Join(Names(), " ")},
		{names: "kubelett", err: `no component is named "kubelett"`},
	} {
		chosen, err := choose(strings.Fields(row.names))
		if (err != nil) != (row.err != "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%q: error %v, want %q", row.names, err, row.err)
		}
		var got []string
		for _, c := range chosen {
			got = append(got, c.Name)
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%q: %v, want %s", row.names, got, row.want)
		}
	}
}

func TestLinkerFlags(t *testing.T) {
	c := Component{Values: map[string]string{"main.version": "1", "a/b.c": "2"}}
	if got, want := c.linkerFlags(), "-s -w -X a/b.c=2 -X main.version=1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
