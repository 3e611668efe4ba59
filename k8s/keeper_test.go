package k8s

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/k8s/kept"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/stack/service"
)

// A daemon that starts again serves by what the former one knew, until its source has told it all.
func TestKeptObjects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects.db")
	run := func(s Source, check func(p *Pipeline, r *targets)) {
		r := &targets{}
		c := r.config(s)
		c.Kept = path
		p := New(c)
		end := start(t, p)
		check(p, r)
		end()
	}
	const web, db = "10.96.0.20", "10.96.0.21"
	all := []object.Object{&object.Node{Name: "n1", Zone: "a"}, serviceOf("web"), sliceOf("web-x", "web", "10.244.1.2"), serviceWith("db", db)}

	run(has(all...), func(_ *Pipeline, r *targets) {
		wait(t, "in force", func() bool { return r.backends(web) != "" })
	})
	run(sourceFunc(silent), func(p *Pipeline, r *targets) {
		wait(t, "kept objects in force", func() bool { return r.backends(web) == "[10.244.1.2:8080] ready" && r.backends(db) != "" })
		if p.Stats().Synced || r.numNodes() != 1 {
			t.Errorf("synced %v, %d nodes", p.Stats().Synced, r.numNodes())
		}
	})
	run(has(all...), func(p *Pipeline, r *targets) {
		wait(t, "synced", func() bool { return p.Stats().Synced })
		time.Sleep(2 * most)
		if calls := r.taken(); !slices.Equal(calls, []string{"nodes", "recalled", "services"}) {
			t.Errorf("got %v, want what was kept once, and the Services again when the source has told all", calls)
		}
	})
	run(has(serviceOf("web"), sliceOf("web-x", "web", "10.244.1.3")), func(_ *Pipeline, r *targets) {
		wait(t, "what the source has", func() bool { return r.backends(web) == "[10.244.1.3:8080] ready" && r.backends(db) == "" })
	})
	run(sourceFunc(silent), func(_ *Pipeline, r *targets) {
		wait(t, "what the source had", func() bool { return r.backends(web) == "[10.244.1.3:8080] ready" })
		if r.backends(db) != "" || r.numNodes() != 0 {
			t.Errorf("what the source no longer had is in force: %q, %d nodes", r.backends(db), r.numNodes())
		}
	})
}

// What came into force is kept, though it ends the daemon.
func TestKeptAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects.db")
	ctx, cancel := context.WithCancel(t.Context())
	c := (&targets{}).config(has(serviceOf("web")))
	c.Kept = path
	c.SetServices = func(*service.Table) {
		cancel()
		time.Sleep(50 * time.Millisecond) // the keeper ends meanwhile
	}
	if err := New(c).Run(ctx); err != nil {
		t.Fatal(err)
	}
	file, all, err := kept.Open(path, c.Log)
	if err != nil || len(all) != 1 {
		t.Fatalf("kept %v, %v, want the Service", all, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// Where nothing can be kept, the daemon works on and says so.
func TestKeptNowhere(t *testing.T) {
	var log bytes.Buffer
	r := &targets{}
	c := r.config(has(serviceOf("web")))
	c.Kept, c.Log = filepath.Join(t.TempDir(), "missing", "objects.db"), slog.New(slog.NewTextHandler(&log, nil))
	end := start(t, New(c))
	wait(t, "in force", func() bool { return r.backends("10.96.0.20") != "" })
	end()
	if !strings.Contains(log.String(), "choose another runDir") {
		t.Errorf("told %q", log.String())
	}
}

// What could not be written is told once, and written when that is possible again.
func TestKeeperTriesAgain(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	path := filepath.Join(t.TempDir(), "objects.db")
	file, _, err := kept.Open(path, logger)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	store := NewStore()
	store.Set(serviceOf("web"))
	k, told := newKeeper(file, store, logger), ""
	k.add(store.Take())
	k.write(&told)
	k.write(&told)
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("told %q, want one line", log.String())
	}
	if k.file, _, err = kept.Open(path, logger); err != nil {
		t.Fatal(err)
	}
	k.write(&told)
	if err := k.file.Close(); err != nil {
		t.Fatal(err)
	}
	file, all, err := kept.Open(path, logger)
	if err != nil || len(all) != 1 {
		t.Fatalf("kept %v, %v, want the Service", all, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
