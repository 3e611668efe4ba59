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

// The run directory that a default state directory lies in goes with it, unless something else is there.
func TestDirectoryDefault(t *testing.T) {
	for _, tt := range []struct {
		path, other string
		want        bool // the directory around it stays
	}{
		{"middleway/up", "", false},
		{"middleway-1000/up", "", false},
		{"middleway/up", "middleway/flows", true},
		{"elsewhere/up", "", true},
		{"middleway/second", "", true},
	} {
		root := t.TempDir()
		path := filepath.Join(root, tt.path)
		d, err := openDirectory(path)
		if err != nil {
			t.Fatal(err)
		}
		if tt.other != "" {
			write(t, filepath.Join(root, tt.other))
		}
		if err := d.remove(); err != nil {
			t.Errorf("%s: %v", tt.path, err)
		}
		if _, err := os.Stat(filepath.Dir(path)); (err == nil) != tt.want {
			t.Errorf("%s with %q: the directory around it: %v, want it there: %v", tt.path, tt.other, err, tt.want)
		}
	}
}

// A state directory among the temporary files that another one could write is not used, asked or taken down.
func TestDirectoryShared(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	path := filepath.Join(tmp, "middleway-1", "up")
	if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	_, opened := openDirectory(path)
	_, asked := ReadStatus(t.Context(), path)
	_, down := Down(t.Context(), path)
	for what, err := range map[string]error{"open": opened, "status": asked, "down": down} {
		if err == nil || !strings.Contains(err.Error(), "is not a directory for user") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v, want nothing there", entries, err)
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
