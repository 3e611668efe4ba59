package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/ipam"
)

func rightsOf(f *os.File) []byte { return unix.UnixRights(int(f.Fd())) }

func TestTombstones(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	if keys, err := buried(socket); err != nil || len(keys) != 0 {
		t.Fatalf("%v, %v where there is no directory", keys, err)
	}
	key := ipam.Key{ContainerID: "a", IfName: "eth0"}
	odd := ipam.Key{ContainerID: "a..b", IfName: "..."}
	for range 2 { // a DEL may come twice
		if err := errors.Join(bury(socket, key), bury(socket, odd)); err != nil {
			t.Fatal(err)
		}
	}
	dir := tombstoneDir(socket)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, tombstoneName(key)))
	if err != nil {
		t.Fatal(err)
	}
	other := tombstoneName(ipam.Key{ContainerID: "b", IfName: "eth0"})
	write(other, string(whole)) // says that it is another one's
	write("garbage", "garbage")
	write(".new-1", string(whole[:4]))
	write(".new-2", string(whole[:4]))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".new-2"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := buried(socket)
	if len(keys) != 2 || err == nil || strings.Count(err.Error(), "it is removed") != 4 {
		t.Errorf("got %v, %v; want two keys and four errors", keys, err)
	}
	keys, err = buried(socket)
	if len(keys) != 2 || err != nil || !isBuried(socket, key) {
		t.Errorf("then %v, %v", keys, err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error("what a symbolic link led to was removed")
	}
	if err := errors.Join(exhume(socket, key), exhume(socket, odd)); err != nil || isBuried(socket, key) {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != ".new-1" {
		t.Errorf("%v, left: %v; want only what is being written", err, entries)
	}
}

// Without the directory of the socket there has never been a daemon.
func TestBuryNowhere(t *testing.T) {
	err := bury(filepath.Join(t.TempDir(), "missing", "cni.sock"), ipam.Key{ContainerID: "a", IfName: "eth0"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzTombstone(f *testing.F) {
	key := ipam.Key{ContainerID: "a", IfName: "eth0"}
	b, err := encode(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, tombstoneName(key))
	f.Add(b[:len(b)-1], tombstoneName(key))
	f.Add([]byte("mwc\x01\x00\x00\x00\x02{}"), "x")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		k, err := parseTombstone(b, name)
		if err != nil {
			return
		}
		if tombstoneName(k) != name || checkKey(k) != nil {
			t.Errorf("%v was read from %s", k, name)
		}
	})
}
