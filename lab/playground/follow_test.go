package playground

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/manifest"
)

// A cluster whose manifests change all the time ends as any other, whatever its pods are about to do.
func TestFollowUntilTheEnd(t *testing.T) {
	dir, files := filepath.Join(t.TempDir(), "up"), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	named := func(name, labels string) string {
		return strings.Replace(sleeper, "{name: web}", "{name: "+name+", labels: {a: "+labels+"}}", 1)
	}
	write("web.yaml", named("web", "x"))
	pods, err := manifest.Read(nil, files)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(t.Context(), Config{Pods: pods, Follow: []string{files}, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("not within 30 s: %s", what)
				return
			}
		}
	}
	write("db.yaml", named("db", "x"))
	write("bad.yaml", "[")
	eventually("the pod is there and the mistake told", func() bool {
		st := c.Status()
		return len(st.Pods) == 2 && st.Pods[0].Name == "db" && len(st.Manifests) == 1 && strings.Contains(st.Manifests[0].Message, "bad.yaml, line 1")
	})
	write("web.yaml", named("web", "y"))
	value := func() string {
		v, _ := c.Pod("default", "web").manifest.FieldValue("metadata.labels['a']", manifest.Facts{})
		return v
	}
	eventually("the label is another one", func() bool { return value() == "y" })
	write("web.yaml", strings.Replace(named("web", "y"), "1000", "2000", 1))
	if err := os.Remove(filepath.Join(files, "db.yaml")); err != nil {
		t.Fatal(err)
	}
	write("new.yaml", named("new", "x"))
	eventually("the next pod is there", func() bool { return c.Pod("default", "new") != nil })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state directory: %v", err)
	}
}

// A pod that cannot be attached is tried again until it can, or is not wanted any more.
func TestFollowFailure(t *testing.T) {
	c, err := New(t.Context(), Config{Nodes: 1, Pods: parse(t, sleeper), Dir: filepath.Join(t.TempDir(), "up")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	socket := filepath.Join(c.nodes[0].Config.RunDir, "cni.sock")
	if err := os.Rename(socket, socket+".away"); err != nil {
		t.Fatal(err)
	}
	both := parse(t, sleeper+"---\n"+strings.Replace(sleeper, "name: web", "name: db", 1))
	c.control.Follow(both.Objects)
	wait := func(what string, ok func(*Pod) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(c.Pod("default", "db")); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	var failed *Pod
	wait("it says why", func(p *Pod) bool { failed = p; return p != nil && p.Status().Message != "" })
	uid := failed.Status().UID
	if err := os.Rename(socket+".away", socket); err != nil {
		t.Fatal(err)
	}
	wait("it runs", func(p *Pod) bool { return p != nil && p.Status().Phase == "Running" })
	if now := failed.Status().UID; now != uid {
		t.Errorf("the pod that could not be attached: got UID %s, which was %s", now, uid)
	}
	c.control.Follow(nil)
	wait("it is deleted", func(p *Pod) bool { return p == nil })
}
