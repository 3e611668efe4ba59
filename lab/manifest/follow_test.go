package manifest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// following is a directory of manifests and its follower, which is told the time.
type following struct {
	*testing.T
	dir string
	f   *Follower
	now time.Time

	writes int64
}

// pod returns a manifest of a pod that runs a command.
func pod(name, command string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {containers: [{name: main, command: [" + command + "]}]}\n---\n"
}

// newFollowing writes files, given as name and text in turn, and follows their directory.
func newFollowing(t *testing.T, files ...string) *following {
	t.Helper()
	g := &following{T: t, dir: t.TempDir(), now: time.Now()}
	for i := 0; i < len(files); i += 2 {
		g.write(files[i], files[i+1])
	}
	g.follow(g.dir)
	return g
}

func (g *following) follow(paths ...string) {
	g.Helper()
	s, err := Read(strings.NewReader(pod("fixed", "x")), paths...)
	if err != nil {
		g.Fatal(err)
	}
	g.f = NewFollower(s, func(o Object) error {
		p, ok := o.(*Pod)
		if !ok {
			return nil
		}
		if p.Spec.NodeName == "node-9" {
			return p.Errorf("spec.nodeName", "there is no node-9")
		}
		return nil
	}, paths...)
	g.settled()
}

func (g *following) path(name string) string { return filepath.Join(g.dir, name) }

func (g *following) write(name, text string) {
	g.Helper()
	g.must(os.WriteFile(g.path(name), []byte(text), 0o600))
	// Each write has a time of its own; the kernel's clock for files ticks only every 10 ms on some machines.
	g.writes++
	g.must(os.Chtimes(g.path(name), time.Time{}, time.Unix(1_800_000_000, g.writes)))
}

func (g *following) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// after returns what is in force after a time; false if nothing was read.
func (g *following) after(d time.Duration) (State, bool) {
	g.Helper()
	if wait := g.f.look(g.now); wait == 0 {
		g.Fatalf("something was ready before")
	}
	g.now = g.now.Add(d)
	if g.f.look(g.now) > 0 {
		return State{}, false
	}
	return g.f.load(g.now)
}

// settled returns what is in force when everything that has happened was taken up.
func (g *following) settled() State {
	g.Helper()
	s, news := g.after(absence)
	if !news {
		g.Fatal("nothing was read")
	}
	return s
}

// quiet checks that nothing is read, however long one waits.
func (g *following) quiet() {
	g.Helper()
	if s, news := g.after(unrest); news {
		g.Errorf("got %v and mistakes %v, want nothing to be read", describeState(s), s.Mistakes)
	}
}

// describeState names pods with what they run.
func describeState(s State) (all []string) {
	for _, p := range PodsOf(s.Objects) {
		all = append(all, p.Name+" "+p.Spec.Containers[0].Command[0])
	}
	return all
}

// check compares pods, and pieces of the mistakes by the names of their files.
func (g *following) check(s State, mistakes map[string]string, pods ...string) {
	g.Helper()
	if got := describeState(s); !slices.Equal(got, pods) {
		g.Errorf("got %q, want %q", got, pods)
	}
	for file, want := range mistakes {
		if got := s.Mistakes[g.path(file)]; got == nil || !strings.HasPrefix(got.Error(), g.path(file)) || !strings.Contains(got.Error(), want) {
			g.Errorf("%s: got mistake %v, want %s", file, got, want)
		}
	}
	if len(s.Mistakes) != len(mistakes) {
		g.Errorf("got mistakes %v, want %d", s.Mistakes, len(mistakes))
	}
}

func TestFollowFiles(t *testing.T) {
	g := newFollowing(t, "a.yaml", pod("a", "x"), "b.yaml", pod("b", "x"))
	g.quiet()
	g.write("c.yml", pod("c", "x")+pod("d", "x"))
	g.write("README.md", "nothing")
	g.write(".c.yml.swp.yaml", "nothing")
	g.check(g.settled(), nil, "a x", "b x", "c x", "d x")
	g.write("b.yaml", pod("b", "y"))
	g.check(g.settled(), nil, "a x", "b y", "c x", "d x")
	g.must(os.Remove(g.path("a.yaml")))
	g.check(g.settled(), nil, "b y", "c x", "d x")
	g.write("c.yml", pod("d", "x"))
	g.check(g.settled(), nil, "b y", "d x")
	g.must(os.RemoveAll(g.dir))
	g.check(g.settled(), nil)
	g.must(os.Mkdir(g.dir, 0o700))
	g.write("e.json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"e"},"spec":{"containers":[{"name":"main","command":["x"]}]}}`)
	g.check(g.settled(), nil, "e x")
	g.quiet()
}

// A file that is being written, renamed away, put aside or swapped is not taken at its word.
func TestFollowSettles(t *testing.T) {
	g := newFollowing(t, "a.yaml", pod("a", "x")+pod("b", "x"))
	g.write("a.yaml", pod("a", "x"))
	for range 5 { // a writer that takes its time
		if s, news := g.after(settle / 2); news {
			t.Fatalf("half a file was taken up: %v", describeState(s))
		}
		g.write("a.yaml", pod("a", "x")+"# "+g.now.String())
	}
	g.write("a.yaml", pod("a", "x")+pod("b", "y"))
	g.check(g.settled(), nil, "a x", "b y")
	g.must(os.Rename(g.path("a.yaml"), g.path("a.yaml~")))
	if _, news := g.after(absence / 2); news {
		t.Fatal("a file that was renamed away was taken for removed at once")
	}
	g.write("a.yaml~", pod("a", "x")+pod("b", "x"))
	g.must(os.Rename(g.path("a.yaml~"), g.path("a.yaml")))
	g.check(g.settled(), nil, "a x", "b x")
	g.write("new", pod("a", "z"))
	g.must(os.Rename(g.path("new"), g.path("a.yaml")))
	g.check(g.settled(), nil, "a z")
}

// What is saved together is taken up together, so that a pod may move from file to file; but one file that changes all the time
// does not keep the others for ever.
func TestFollowTogether(t *testing.T) {
	g := newFollowing(t, "a.yaml", pod("a", "x")+pod("m", "x"), "b.yaml", pod("b", "x"))
	g.write("a.yaml", pod("a", "x"))
	if _, news := g.after(settle * 3 / 4); news {
		t.Fatal("it was taken up too soon")
	}
	g.write("b.yaml", pod("b", "x")+pod("m", "x"))
	if _, news := g.after(settle * 3 / 4); news {
		t.Fatal("the first of two was taken up before the second")
	}
	g.check(g.settled(), nil, "a x", "b x", "m x")
	g.write("a.yaml", pod("a", "y"))
	for passed := time.Duration(0); ; passed += settle / 2 {
		g.write("b.yaml", pod("b", "x")+"# "+g.now.String())
		if s, news := g.after(settle / 2); news {
			g.check(s, nil, "a y", "b x", "m x")
			break
		}
		if passed > 2*unrest {
			t.Fatal("a restless file keeps another from being read")
		}
	}
}

func TestFollowMistakes(t *testing.T) {
	g := newFollowing(t, "a.yaml", pod("a", "x"), "b.yaml", pod("b", "x"))
	for _, tt := range []struct{ name, text, want string }{
		{"no YAML", "kind: [", "line 1: this is no YAML"},
		{"a wrong field", strings.Replace(pod("a", "y"), "command", "comand", 1), "line 4, spec.containers[0].comand: Kubernetes has no such field"},
		{"a right pod before a wrong one", pod("a", "y") + pod("A", "x"), `line 8, metadata.name: "A" is no name`},
		{"nothing", "", "no object is in it any more; remove the file if its objects are to go"},
		{"only a comment", "# later\n", "no object is in it any more"},
		{"what the cluster refuses", strings.Replace(pod("a", "y"), "spec: {", "spec: {nodeName: node-9, ", 1), "line 4, spec.nodeName: there is no node-9"},
		{"another file's pod", pod("b", "y"), "line 3, metadata.name: default/b is the pod of " + g.path("b.yaml") + ", line 1, already"},
		{"a pod twice", pod("a", "y") + pod("a", "y"), "default/a is the pod of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g.T = t
			g.write("a.yaml", tt.text)
			g.write("c.yaml", pod("c", "x")) // others are not kept waiting
			g.check(g.settled(), map[string]string{"a.yaml": tt.want}, "a x", "b x", "c x")
			g.must(os.Remove(g.path("c.yaml")))
			g.check(g.settled(), map[string]string{"a.yaml": tt.want}, "a x", "b x")
			g.quiet()
			g.write("a.yaml", pod("a", "x"))
			g.check(g.settled(), nil, "a x", "b x")
		})
	}
	g.T = t
	g.write("c.yaml", "") // one who has only just been made
	g.check(g.settled(), nil, "a x", "b x")
	g.write("c.yaml", "apiVersion: v1\nkind: ConfigMap\n")
	s := g.settled()
	g.check(s, nil, "a x", "b x")
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "kind ConfigMap is left out") {
		t.Errorf("got warnings %q", s.Warnings)
	}
	g.write("d.yaml", "apiVersion: v1\nkind: ConfigMap\n")
	if s := g.settled(); len(s.Warnings) != 0 {
		t.Errorf("again: got warnings %q", s.Warnings)
	}
	g.write("a.yaml", "apiVersion: v1\nkind: ConfigMap\n") // another object in place of the pod
	g.check(g.settled(), nil, "b x")
}

// Of two files with one pod the one has it that had it before.
func TestFollowDoubles(t *testing.T) {
	g := newFollowing(t, "b.yaml", pod("b", "x"), "c.yaml", pod("c", "x"))
	g.write("a.yaml", pod("b", "y")+pod("a", "x")) // comes first
	g.check(g.settled(), map[string]string{"a.yaml": "default/b is the pod of"}, "b x", "c x")
	g.write("b.yaml", pod("b", "z"))
	g.check(g.settled(), map[string]string{"a.yaml": "default/b is the pod of"}, "b z", "c x")
	g.write("b.yaml", pod("n", "x")) // gives it free, and a.yaml needs no other change
	g.check(g.settled(), nil, "b y", "a x", "n x", "c x")
	g.write("b.yaml", pod("c", "y")) // two exchange their pods
	g.write("c.yaml", pod("n", "y"))
	g.check(g.settled(), nil, "b y", "a x", "c y", "n y")
	g.write("d.yaml", pod("d", "one")) // two at once
	g.write("e.yaml", pod("d", "two"))
	g.check(g.settled(), map[string]string{"e.yaml": "default/d is the pod of"}, "b y", "a x", "c y", "n y", "d one")
	g.must(os.Remove(g.path("d.yaml")))
	g.check(g.settled(), nil, "b y", "a x", "c y", "n y", "d two")
}

// A mounted ConfigMap is a directory of links, through one link that is swapped.
func TestFollowLinks(t *testing.T) {
	g := &following{T: t, dir: t.TempDir(), now: time.Now()}
	for version, text := range map[string]string{"..1": pod("a", "x"), "..2": pod("a", "y")} {
		g.must(os.Mkdir(g.path(version), 0o700))
		g.write(version+"/a.yaml", text)
	}
	g.must(os.Symlink("..1", g.path("..data")))
	g.must(os.Symlink("..data/a.yaml", g.path("a.yaml")))
	g.must(os.Symlink("nowhere.yaml", g.path("dangling.yaml.lock")))
	g.follow(g.dir)
	g.quiet()
	g.must(os.Symlink("..2", g.path("..new")))
	g.must(os.Rename(g.path("..new"), g.path("..data")))
	g.check(g.settled(), nil, "a y")
	g.must(os.Symlink("nowhere", g.path("dangling.yaml")))
	g.quiet()
}

// Standard input is not read again; a file that is named is followed as one in a directory is.
func TestFollowNamed(t *testing.T) {
	g := &following{T: t, dir: t.TempDir(), now: time.Now()}
	g.write("a.yaml", pod("a", "x"))
	g.follow(g.path("a.yaml"), "-")
	g.write("a.yaml", pod("a", "y")+pod("fixed", "y"))
	g.check(g.settled(), map[string]string{"a.yaml": "default/fixed is the pod of standard input"}, "fixed x", "a x")
	g.write("a.yaml", pod("a", "y"))
	s := g.settled()
	g.check(s, nil, "fixed x", "a y")
	if !g.f.Once(s.Objects[0]) || g.f.Once(s.Objects[1]) {
		t.Error("standard input is followed, or the file is not")
	}
	g.must(os.Remove(g.path("a.yaml")))
	g.check(g.settled(), nil, "fixed x")
}

// What may not be read keeps what it held.
func TestFollowDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	g := newFollowing(t, "a.yaml", pod("a", "x"))
	g.must(os.Chmod(g.dir, 0))
	defer func() { g.must(os.Chmod(g.dir, 0o700)) }()
	if g.f.look(g.now) > 0 {
		t.Fatal("nothing is told")
	}
	s, news := g.f.load(g.now)
	if err := s.Mistakes[g.dir]; !news || err == nil || len(s.Mistakes) != 1 {
		t.Errorf("got %v", s.Mistakes)
	}
	if got := describeState(s); !slices.Equal(got, []string{"a x"}) {
		t.Errorf("got %v", got)
	}
	g.quiet()
}

// The kernel tells of changes, and the follower ends with its context.
func TestFollowRun(t *testing.T) {
	g := &following{T: t, dir: t.TempDir(), now: time.Now()}
	g.write("a.yaml", pod("a", "x"))
	s, err := Read(nil, g.dir)
	g.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	states, done := make(chan State, 10), make(chan error, 1)
	go func() {
		NewFollower(s, func(Object) error { return nil }, g.dir).Run(ctx, func(s State) { states <- s })
		done <- errors.New("ended")
	}()
	next := func(want ...string) {
		t.Helper()
		for end := time.After(30 * time.Second); ; {
			select {
			case s := <-states:
				if slices.Equal(describeState(s), want) {
					return
				}
			case <-end:
				t.Fatalf("not within 30 s: %q", want)
			}
		}
	}
	next("a x")
	g.write("b.yaml", pod("b", "x"))
	next("a x", "b x")
	g.must(os.Remove(g.path("a.yaml")))
	next("b x")
	cancel()
	<-done
}

func TestDiffers(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"nothing", "", "", ""},
		{"layout", "[serve]", "\n    - serve\n    # as before", ""},
		{"quantity", "image: example.org/web", "resources: {limits: {cpu: 1000m}}\n    image: example.org/web", "spec.containers[0].resources.limits"},
		{"command", "[serve]", "[serve, x]", "spec.containers[0].command"},
		{"a word", "[serve]", "[other]", "spec.containers[0].command[0]"},
		{"default", "spec:", "spec:\n  restartPolicy: Always", ""},
		{"label", "  name: web", "  name: web\n  labels: {a: b}", ""},
		{"node", "spec:", "spec:\n  nodeName: node-1", "spec.nodeName"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := parseOne(t, web), parseOne(t, edited(tt.from, tt.to))
			if got := a.Differs(b); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := b.Differs(b); got != "" {
				t.Errorf("from itself: got %q", got)
			}
		})
	}
	a := parseOne(t, web+"    resources: {limits: {cpu: 1000m}}\n")
	if got := a.Differs(parseOne(t, web+"    resources: {limits: {cpu: 1}}\n")); got != "" {
		t.Errorf("one quantity in two ways: got %q", got)
	}
}

func TestRelabel(t *testing.T) {
	p := parseOne(t, web)
	if p.Relabel(parseOne(t, web)) {
		t.Error("the same labels are others")
	}
	if !p.Relabel(parseOne(t, edited("  name: web", "  name: web\n  labels: {a: b}"))) {
		t.Error("other labels are the same")
	}
	if got, _ := p.FieldValue("metadata.labels['a']", Facts{}); got != "b" {
		t.Errorf("got %q", got)
	}
}

func parseOne(t *testing.T, text string) *Pod {
	t.Helper()
	s, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Pods()[0]
}
