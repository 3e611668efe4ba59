package playground

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "up")
	d, err := openDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.populate(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, "node-1", "flows"), filepath.Join(path, logName))
	if _, err := openDirectory(path); err == nil || !strings.Contains(err.Error(), "a cluster runs in "+path+" already") {
		t.Errorf("a second one: got %v", err)
	}
	if err := d.lock.Close(); err != nil { // as a crash does
		t.Fatal(err)
	}
	if d, err = openDirectory(path); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v, want lock and log", entries, err)
	}
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want it gone", err)
	}
}

// Other people's files are neither taken over nor removed.
func TestDirectoryForeign(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "bin", "tool"))
	if _, err := openDirectory(path); err == nil || !strings.Contains(err.Error(), "holds other things (bin)") {
		t.Errorf("got %v", err)
	}
	own := t.TempDir()
	d, err := openDirectory(own)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(own, "notes.txt"))
	if err := d.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(own, "notes.txt")); err != nil {
		t.Error(err)
	}
}

// What a crash has left is a cluster's also where the lock is not among it: down and up clear it.
func TestDirectoryLeft(t *testing.T) {
	for _, end := range []func(path string) error{
		func(path string) error {
			if got, err := Down(t.Context(), path); got != ClearedUp || err != nil {
				t.Errorf("down: got %q, %v", got, err)
			}
			return nil
		},
		func(path string) error {
			d, err := openDirectory(path)
			if err != nil {
				return err
			}
			return d.remove()
		},
	} {
		path, err := os.MkdirTemp("", "mw-") // t.TempDir is too long for sockets
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(path, socketsName), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		if err := end(path); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want it gone", err)
		}
	}
	own := t.TempDir() // a file of that name is somebody else's
	write(t, filepath.Join(own, socketsName))
	if got, err := Down(t.Context(), own); got != NothingThere || err != nil {
		t.Errorf("down: got %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(own, socketsName)); err != nil {
		t.Error(err)
	}
}

func TestOwner(t *testing.T) {
	d := &directory{path: t.TempDir()}
	if _, ok := readOwner(d.path); ok {
		t.Error("there is none yet")
	}
	if err := d.writeOwner(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if o, ok := readOwner(d.path); !ok || o.PID != os.Getpid() || o.Start == "" {
		t.Errorf("got %+v, %v", o, ok)
	}
	for _, text := range []string{"", "{", `{"pid":1}`, `{"pid":-1}`, `{"pid":` + "2" + `,"start":"1"}`} {
		if err := os.WriteFile(d.join(ownerName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, ok := readOwner(d.path); ok {
			t.Errorf("%s: got %+v", text, o)
		}
	}
}
