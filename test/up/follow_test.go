package up

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/lab/playground"
)

// followed is a cluster in the background that follows a directory of manifests.
type followed struct {
	*playgroundAt
	files string
}

// newFollowed brings it up with files, given as name and text in turn, by a path that is relative to another directory.
func newFollowed(t *testing.T, files ...string) *followed {
	t.Helper()
	f := &followed{newPlayground(t), filepath.Join(t.TempDir(), "pods")}
	f.must2(os.Mkdir(f.files, 0o700))
	for i := 0; i < len(files); i += 2 {
		f.write(files[i], files[i+1])
	}
	cmd := f.command("up", "-d", "-f", "pods")
	cmd.Dir = filepath.Dir(f.files)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return f
}

func (f *followed) path(name string) string { return filepath.Join(f.files, name) }

func (f *followed) write(name, text string) {
	f.Helper()
	f.must2(os.WriteFile(f.path(name), []byte(text), 0o600))
}

// log returns what the cluster has printed.
func (f *followed) log() string {
	b, err := os.ReadFile(filepath.Join(f.dir, "up.log"))
	f.must2(err)
	return string(b)
}

// told waits until the cluster has printed something.
func (f *followed) told(what string) {
	f.Helper()
	f.eventually(what, func() bool { return strings.Contains(f.log(), what) })
}

// find returns a pod, or nil.
func (f *followed) find(name string) *playground.PodStatus {
	f.Helper()
	for _, p := range f.status().Pods {
		if p.Name == name {
			return &p
		}
	}
	return nil
}

// runs waits until a pod runs, another one than before, and returns it.
func (f *followed) runs(name string, before *playground.PodStatus) *playground.PodStatus {
	f.Helper()
	var now *playground.PodStatus
	f.eventually(name+" runs", func() bool {
		now = f.find(name)
		return now != nil && now.Phase == "Running" && (before == nil || now.UID != before.UID)
	})
	return now
}

// untouched checks that a pod is the one that it was, and runs as it did.
func (f *followed) untouched(before *playground.PodStatus) {
	f.Helper()
	now := f.find(before.Name)
	if now == nil || now.UID != before.UID || now.Containers[0].PID != before.Containers[0].PID || now.Restarts() != before.Restarts() {
		f.Errorf("%s: got %+v, want %+v", before.Name, now, before)
	}
}

// Pods follow their files: what is new is added, what is gone is deleted, what has changed is replaced, and nothing else is
// touched; a mistake changes nothing.
func TestFollow(t *testing.T) {
	f := newFollowed(t, "still.yaml", pods("still: sleep 1000"), "web.yaml", pods("web: echo first; sleep 1000"))
	still, web := f.runs("still", nil), f.runs("web", nil)

	f.write("more.yaml", pods("one: exec middleway tool serve", "two: sleep 1000"))
	one := f.runs("one", nil)
	f.runs("two", nil)
	f.eventually("a pod that came later answers", func() bool {
		_, code := f.middleway("exec", "still", "--", "middleway", "tool", "get", one.IPs[0].String()+":8080")
		return code == 0
	})

	cmd, out := f.pipe("logs", "-f", "web")
	scanner := bufio.NewScanner(out)
	if !scanner.Scan() || scanner.Text() != "first" {
		t.Errorf("got %q", scanner.Text())
	}
	f.write("web.yaml", pods("web: echo second; sleep 1000"))
	web = f.runs("web", web)
	f.told("default/web: replaced, as spec.containers[0].command[2] has changed")
	if scanner.Scan() {
		t.Errorf("the pod is another one, and its output goes on: %q", scanner.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("logs of a pod that was deleted: %v", err)
	}
	f.eventually("the new pod's output", func() bool { return f.must("logs", "web") == "second\n" })

	f.write("web.yaml", strings.Replace(pods("web: echo second; sleep 1000"), "name: web", "name: web, labels: {a: b}", 1))
	f.told("default/web: labels or annotations changed, in place")
	f.untouched(web)

	f.write("web.yaml", "kind: [")
	f.told("mistake: " + f.path("web.yaml") + ", line 1: this is no YAML")
	if out := f.must("status"); !strings.Contains(out, f.path("web.yaml")+", line 1: this is no YAML") {
		t.Errorf("the status does not tell of the mistake:\n%s", out)
	}
	f.write("three.yaml", pods("three: sleep 1000")) // is not kept waiting by that
	f.runs("three", nil)
	f.untouched(web)
	if n := strings.Count(f.log(), "mistake:"); n != 1 {
		t.Errorf("the mistake is told %d times", n)
	}
	f.write("new", pods("web: echo third; sleep 1000"))
	f.must2(os.Rename(f.path("new"), f.path("web.yaml")))
	f.told(f.path("web.yaml") + ": the mistake is gone")
	web = f.runs("web", web)

	f.write("four.yaml", pods("{nodeName: node-9} four: true")+pods("web: true"))
	f.told(`four.yaml, line 5, spec.nodeName: there is no node "node-9"; there are node-1 to node-2`)
	f.write("four.yaml", pods("web: true"))
	f.told("metadata.name: default/web is the pod of " + f.path("web.yaml"))
	f.untouched(web)

	f.must2(os.Remove(f.path("more.yaml")))
	f.eventually("one and two are gone", func() bool { return f.find("one") == nil && f.find("two") == nil })
	f.told("default/one: deleted, as its manifest is gone")
	if _, err := os.Stat(filepath.Join(f.dir, "output/default/one")); err == nil {
		t.Error("the output of a pod is left that was deleted")
	}
	f.untouched(still)
	f.untouched(web)

	f.must2(os.RemoveAll(f.files))
	f.eventually("no pod is left", func() bool { return len(f.status().Pods) == 0 })
	if st := f.status(); st.State != "running" || !st.Nodes[0].Ready {
		t.Errorf("without pods: got %+v", st)
	}
	f.must2(os.Mkdir(f.files, 0o700))
	f.write("again.yaml", pods("again: sleep 1000"))
	f.runs("again", nil)
	before := f.processes()
	f.must("down")
	f.gone(before)
}

// A pod that ends slowly keeps no other waiting, neither while it is deleted nor when everything is taken down.
func TestFollowSlowly(t *testing.T) {
	slow := func(text string) string {
		return pods("{restartPolicy: Never, terminationGracePeriodSeconds: 60} slow: trap 'echo asked' TERM; echo " + text + "; while :; do sleep 0.1; done")
	}
	f := newFollowed(t, "slow.yaml", slow("one"), "other.yaml", pods("other: sleep 1000"))
	before := f.runs("slow", nil)
	f.eventually("it has set its trap", func() bool { return f.must("logs", "slow") == "one\n" })
	f.write("slow.yaml", slow("two"))
	f.eventually("it was asked to end", func() bool { return strings.Contains(f.must("logs", "slow"), "asked") })
	f.write("other.yaml", pods("other: sleep 2000"))
	f.told("default/other: replaced")
	f.runs("other", nil)
	f.write("slow.yaml", slow("three")) // what is wanted by then comes after it
	f.write("later.yaml", pods("later: sleep 1000"))
	f.runs("later", nil)
	if now := f.find("slow"); now == nil || now.UID != before.UID {
		t.Errorf("it did not get the time that it has: %+v", now)
	}
	f.kill(before.Containers[0].PID)
	f.runs("slow", before)
	f.eventually("the third is in force", func() bool { return f.must("logs", "slow") == "three\n" })
	f.kill(f.find("slow").Containers[0].PID) // else its end takes a minute
}

// Whatever happens to files, the pods are at last those of the files.
func TestFollowMuch(t *testing.T) {
	f := newFollowed(t, "0.yaml", pods("p0: sleep 1000"))
	for round := range 3 {
		for i := range 6 {
			name := fmt.Sprintf("%d.yaml", i)
			if (i+round)%3 == 0 && i > 0 {
				if err := os.Remove(f.path(name)); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				continue
			}
			f.write(name, pods(fmt.Sprintf("p%d: echo %d; sleep 1000", i, round)))
		}
		f.eventually(fmt.Sprintf("round %d", round), func() bool {
			st := f.status()
			want := 0
			for i := range 6 {
				if (i+round)%3 == 0 && i > 0 {
					continue
				}
				want++
				if p := f.find(fmt.Sprintf("p%d", i)); p == nil || p.Phase != "Running" {
					return false
				}
				if out, _ := f.middleway("logs", fmt.Sprintf("p%d", i)); out != fmt.Sprintf("%d\n", round) {
					return false
				}
			}
			return len(st.Pods) == want
		})
	}
	before := f.processes()
	f.must("down")
	f.gone(before)
}
