package components

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testCache is an empty cache with the sources of this checkout.
func testCache(t *testing.T) Cache {
	t.Setenv("MIDDLEWAY_KUBE_DIR", t.TempDir())
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func state(t *testing.T, c Cache, name string) State {
	t.Helper()
	entries := c.List()
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("no entry for %s", name)
	}
	return entries[i].State
}

func build(t *testing.T, c Cache, name string) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Build(t.Context(), &out, name); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestBuild(t *testing.T) {
	c := testCache(t)
	if got := state(t, c, "pause"); got != Missing {
		t.Errorf("%s before the first build", got)
	}
	if out := build(t, c, "pause"); !strings.HasPrefix(out, " 1 of 1  pause: ") || !strings.HasSuffix(out, " MB\n") {
		t.Errorf("the build says %q", out)
	}
	if got := state(t, c, "pause"); got != Built || len(c.Missing("pause")) > 0 {
		t.Errorf("%s after the build", got)
	}
	unlock, err := c.lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := build(t, c, "pause"); out != "" {
		t.Errorf("a build of what is there says %q, while another one goes on", out)
	}
	unlock()
	if _, err := os.Stat(filepath.Join(c.Dir, "work")); err == nil {
		t.Error("the build left its folder")
	}

	t.Run("another size", func(t *testing.T) {
		if err := os.Truncate(c.Bin("pause"), 100); err != nil {
			t.Fatal(err)
		}
		if got := state(t, c, "pause"); got != Missing {
			t.Error(got)
		}
		build(t, c, "pause")
	})
	for what, change := range map[string]func(*Stamp){
		"other flags":   func(s *Stamp) { s.Recipe = "other" },
		"other sources": func(s *Stamp) { s.Sources = "other" },
	} {
		t.Run(what, func(t *testing.T) {
			s, _ := c.stamp("pause")
			change(&s)
			if err := c.writeStamp(s); err != nil {
				t.Fatal(err)
			}
			if got := state(t, c, "pause"); got != Outdated {
				t.Error(got)
			}
			if out := build(t, c, "pause"); out == "" {
				t.Error("it was not built again")
			}
		})
	}
	t.Run("a file that is no longer made", func(t *testing.T) {
		if err := os.WriteFile(c.Bin("former"), []byte("former"), 0o755); err != nil {
			t.Fatal(err)
		}
		s, _ := c.stamp("pause")
		s.Recipe, s.Files["bin/former"] = "other", 6
		if err := c.writeStamp(s); err != nil {
			t.Fatal(err)
		}
		build(t, c, "pause")
		if _, err := os.Stat(c.Bin("former")); err == nil {
			t.Error("it is still there")
		}
	})
}

func TestBuildInterrupted(t *testing.T) {
	c := testCache(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	// The first line comes before go is called.
	err := c.Build(ctx, writerFunc(func(b []byte) { cancel(reason) }), "pause")
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), filepath.Join(c.Dir, "logs", "pause.log")) {
		t.Errorf("error %v, want the reason and the log's name", err)
	}
	for _, name := range []string{"work", "bin", "stamps"} {
		if _, err := os.Stat(filepath.Join(c.Dir, name)); err == nil {
			t.Errorf("the build left %s", name)
		}
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestBuildTwice(t *testing.T) {
	c := testCache(t)
	var outs [2]bytes.Buffer
	var errs [2]error
	var both sync.WaitGroup
	for i := range outs {
		both.Go(func() { errs[i] = c.Build(t.Context(), &outs[i], "pause") })
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(outs[0].String()+outs[1].String(), "1 of 1"); n != 1 {
		t.Errorf("%d of two builds at once built it:\n%s\n%s", n, &outs[0], &outs[1])
	}
}

func TestBuildElsewhere(t *testing.T) {
	t.Chdir(t.TempDir())
	c := testCache(t)
	if err := c.Build(t.Context(), os.Stderr, "pause"); err == nil || !strings.Contains(err.Error(), "checkout") {
		t.Errorf("error %v, want one that says where to call it", err)
	}
}

func TestLock(t *testing.T) {
	c := testCache(t)
	unlock, err := c.lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var said bytes.Buffer
	_, err = c.lock(ctx, writerFunc(func(b []byte) { said.Write(b); cancel() }))
	if !errors.Is(err, context.Canceled) || !strings.Contains(said.String(), c.Dir) {
		t.Errorf("a second build ends with %v, and said %q", err, &said)
	}
	unlock()
	if unlock, err = c.lock(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestProvide(t *testing.T) {
	c := testCache(t)
	t.Setenv("PATH", t.TempDir()) // no apt-get
	if err := c.Provide(t.Context(), nil, Need{Package: "go", File: filepath.Join(c.source, "kubernetes", "go.mod")}); err != nil {
		t.Errorf("what is there: %v", err)
	}
	err := c.Provide(t.Context(), nil, Need{Package: "zoo", Program: "no-such-program"}, Need{Package: "ant", File: "/no/such/file"}, Need{Package: "zoo", File: "/no/such/file"})
	if err == nil || !strings.HasSuffix(err.Error(), "ant zoo in Debian") {
		t.Errorf("error %v, want one that names both packages once", err)
	}
}

func TestImagesMissing(t *testing.T) {
	if paths, err := testCache(t).Images(); err == nil || !strings.Contains(err.Error(), "kube build images") {
		t.Errorf("%v, %v: want an error that says how to make them", paths, err)
	}
}
