package up

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
)

// What is wrong is said in one line, before anything is made.
func TestMistakes(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		manifest string
		args     []string
		want     []string
	}{
		{"unknown field", strings.Replace(pods("web: true"), "containers", "container", 1), nil, []string{"pods.yaml, line 5, spec.container:", "did you mean containers?"}},
		{"no command", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: main\n    image: example.org/web\n", nil,
			[]string{"pods.yaml, line 6, spec.containers[0].command:", "has no command"}},
		{"unknown node", pods("{nodeName: node-3} web: true"), nil, []string{"pods.yaml, line 5, spec.nodeName:", `no node "node-3"`, "node-1 to node-2"}},
		{"pod twice", pods("web: true", "web: true"), nil, []string{"metadata.name", "default/web", "another name"}},
		{"no YAML", "kind: [", nil, []string{"pods.yaml, line 1:", "no YAML or JSON"}},
		{"no pod", "# nothing\n", nil, []string{"pods.yaml: no object is in it"}},
		{"other kinds only", "apiVersion: v1\nkind: ConfigMap\n", nil, []string{"pods.yaml: only ConfigMap is in it, and the playground runs Pods, Deployments, Services"}},
		{"init container", strings.Replace(pods("web: true"), "containers:", "initContainers: [{name: main, command: [x]}], containers:", 1), nil,
			[]string{"pods.yaml, line 5, spec.containers[0].name:", `"main" is the name of initContainers[0] already`}},
		{"probe", strings.Replace(pods("web: true"), "name: main", "name: main, livenessProbe: {httpGet: {port: http}}", 1), nil,
			[]string{"pods.yaml, line 5, spec.containers[0].livenessProbe.httpGet.port:", `no port named "http"`}},
		{"pod's name", strings.Replace(pods("web: true"), "web", "Web", 1), nil, []string{`"Web" is no name for a pod; take at most 253 small letters`}},
		{"number", "", []string{"--nodes", "x"}, []string{`--nodes "x": want a whole number`}},
		{"no such file", "", []string{"-f", "/no/such.yaml"}, []string{"/no/such.yaml", "no such file or directory"}},
		{"no nodes", "", []string{"--nodes", "0"}, []string{"want 1 to 89"}},
		{"too many nodes", "", []string{"--nodes", "90"}, []string{"want 1 to 89"}},
		{"underlay", "", []string{"--underlay", "wireless"}, []string{`"wireless"`, "want auto, kernel, userspace or machine"}},
		{"argument", "", []string{"pods.yaml"}, []string{`middleway up takes no argument like "pods.yaml"; manifests are given by -f, once for each file or directory: -f pods.yaml`}},
		{"directory as argument", "", []string{foreign}, []string{"once for each file or directory: -f " + foreign}},
		{"word as argument", "", []string{"now"}, []string{`middleway up takes no argument like "now", only flags`}},
		{"address", "", []string{"-f", "https://shop.test/pods.yaml"},
			[]string{"-f https://shop.test/pods.yaml: addresses are not fetched; fetch it first, for example: curl -fsSL https://shop.test/pods.yaml | middleway up -f -"}},
		{"address as argument", "", []string{"http://shop.test/pods.yaml"}, []string{"addresses are not fetched"}},
		{"other things there", "", []string{"--dir", foreign}, []string{foreign, "precious", "empty or new directory"}},
		{"long path", "", []string{"--dir", "/tmp/" + strings.Repeat("long/", 25)}, []string{"longer than", "--dir"}},
	} {
		for _, detach := range []string{"-d=false", "-d"} {
			t.Run(tt.name+" "+detach, func(t *testing.T) {
				p := newPlayground(t)
				args := append([]string{"up", detach}, tt.args...)
				if tt.manifest != "" {
					file := filepath.Join(t.TempDir(), "pods.yaml")
					p.must2(os.WriteFile(file, []byte(tt.manifest), 0o600))
					args = append(args, "-f", file)
				}
				start := time.Now()
				out, code := p.middleway(args...)
				if code != 1 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "middleway: ") {
					t.Errorf("got %d after %v:\n%s", code, time.Since(start), out)
				}
				for _, want := range tt.want {
					if !strings.Contains(out, want) {
						t.Errorf("%q is not in: %s", want, out)
					}
				}
				if _, err := os.Stat(p.dir); err == nil {
					t.Error("the state directory was made")
				}
			})
		}
	}
	if _, err := os.Stat(filepath.Join(foreign, "precious")); err != nil {
		t.Error(err)
	}
}

// Status tells what it looked for.
func TestStatusMistakes(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--dir", empty}, []string{"no cluster runs in " + empty + "; `middleway up --dir " + empty + "` starts one"}},
		{[]string{"--dir", empty, "--run-dir", empty}, []string{"give one of them"}},
		{nil, []string{"no cluster runs in " + empty + "/up; `middleway up` starts one", "no node daemon answers in", "`middleway node` starts one, --run-dir"}},
	} {
		cmd := exec.Command(program, append([]string{"status"}, tt.args...)...)
		cmd.Env = append(os.Environ(), playground.DirVar+"="+empty+"/up")
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%v: got %v\n%s", tt.args, err, out)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%v: %q is not in: %s", tt.args, want, out)
			}
		}
	}
}

// A wrong command line is told before a cluster is looked for, or made.
func TestCaptureMistakes(t *testing.T) {
	p := newPlayground(t) // there is none
	for args, want := range map[string]string{
		"pod-1-1 node-1":     "want one pod or node, or tunnel",
		"-w - -o json":       "give one of them",
		"--run-dir /tmp":     "give one of them",
		"--duration -1s":     "want 0 or more",
		"--duration soon":    "want a time like 500ms or 10s",
		"--hosts web":        "unknown flag: --hosts; `middleway capture --help` lists the flags",
		"--host web":         `--host "web": want an address`,
		"-o xml":             `-o "xml": want text or json`,
		"-w /nowhere/x.pcap": "-w /nowhere/x.pcap: there is no directory /nowhere; make it, or name a file elsewhere",
		"-w /proc":           "-w /proc: is a directory",
	} {
		out, code := p.middleway(append([]string{"capture"}, strings.Fields(args)...)...)
		if code != 2 || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: got %d %q, want %q", args, code, out, want)
		}
	}
	out, err := exec.Command(program, "demo", "-w", "/nowhere/demo.pcapng").CombinedOutput()
	if want := "middleway: demo: -w /nowhere/demo.pcapng: there is no directory /nowhere; make it, or name a file elsewhere\n"; err == nil || string(out) != want {
		t.Errorf("got %v %q, want %q", err, out, want)
	}
}
