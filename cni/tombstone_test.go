package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/ipam"
)

func rightsOf(f *os.File) []byte { return unix.UnixRights(int(f.Fd())) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keyOf(id string) ipam.Key { return ipam.Key{ContainerID: id, IfName: "eth0"} }

func TestTombstones(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	if names, err := buried(socket); err != nil || len(names) != 0 {
		t.Fatalf("%v, %v where there is no directory", names, err)
	}
	key, odd := keyOf("a"), ipam.Key{ContainerID: "a..b", IfName: "..."}
	for range 2 { // a DEL may come twice
		if err := errors.Join(bury(socket, key), bury(socket, odd)); err != nil {
			t.Fatal(err)
		}
	}
	dir := tombstoneDir(socket)
	write(t, filepath.Join(dir, ".new-1"), "being written")
	write(t, filepath.Join(dir, ".new-2"), "its writer was killed")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".new-2"), old, old); err != nil {
		t.Fatal(err)
	}
	others := spoil(t, dir)
	names, err := buried(socket)
	want := []string{tombstoneName(key), tombstoneName(odd)}
	slices.Sort(want)
	if !slices.Equal(names, want) || err != nil {
		t.Errorf("got %v, %v; want %v", names, err, want)
	}
	for _, name := range names {
		if there, err := isBuried(socket, name); !there || err != nil {
			t.Errorf("%s: %v, %v", name, there, err)
		}
		if err := exhume(socket, name); err != nil {
			t.Error(err)
		}
		if there, err := isBuried(socket, name); there || err != nil {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	mustLie(t, dir, append(others, ".new-1")...)
}

// spoil puts things into a directory of tombstones that are none, and returns their names.
func spoil(t *testing.T, dir string) []string {
	t.Helper()
	hash := func(id string) string { return tombstoneName(keyOf(id)) }
	write(t, filepath.Join(dir, "notes"), "somebody's")
	write(t, filepath.Join(dir, strings.ToUpper(hash("upper"))), "somebody's")
	err := errors.Join(
		os.Mkdir(filepath.Join(dir, hash("dir")), 0o700), os.Mkdir(filepath.Join(dir, ".new-dir"), 0o700),
		os.Symlink("/etc/passwd", filepath.Join(dir, hash("link"))),
	)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, hash("dir"), "inside"), "somebody's")
	return []string{"notes", strings.ToUpper(hash("upper")), hash("dir"), ".new-dir", hash("link")}
}

// mustLie expects exactly these names in a directory.
func mustLie(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("in %s: %v, want %v", dir, got, want)
	}
}

// Whatever is in a tombstone, or forbids to read it, its name is obeyed.
func TestUnreadableTombstones(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	for _, id := range []string{"a", "b", "c", "d"} {
		d.mustAdd(id)
	}
	dir := tombstoneDir(d.socket())
	for id, text := range map[string]string{"a": "", "b": "mwc\x09\x00\x00\x00\x02{}", "c": strings.Repeat("x", 1<<20)} {
		path := filepath.Join(dir, tombstoneName(keyOf(id)))
		write(t, path, text)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	others := spoil(t, dir)
	d.server.lookAround()
	d.mustHave("d")
	mustLie(t, dir, others...)
}

// A directory of tombstones that cannot be read keeps an ADD of who may have a tombstone from going on.
func TestTombstonesHidden(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	d.mustAdd("a")
	dir := tombstoneDir(d.socket())
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.add("b"); err == nil || !strings.Contains(err.Error(), "tombstone") {
		t.Errorf("got %v", err)
	}
	d.server.lookAround()
	d.mustHave("a")
}

// A DEL finds the directory missing, or a daemon removes it while a tombstone is being left.
func TestBuryWithoutDirectory(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	dir := tombstoneDir(socket)
	for i := range 2000 {
		done := make(chan struct{})
		go func() { // once, as Cleanup
			_ = os.Remove(dir)
			close(done)
		}()
		if err := bury(socket, keyOf("a")); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		<-done
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // next time it is there
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	nowhere := filepath.Join(t.TempDir(), "missing", "cni.sock")
	if err := bury(nowhere, keyOf("a")); !errors.Is(err, fs.ErrNotExist) || daemonWasAt(nowhere) {
		t.Errorf("without the directory of the socket: %v", err)
	}
	if !daemonWasAt(socket) {
		t.Error("no daemon was where its directory is")
	}
}
