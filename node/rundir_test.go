package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDefaultRunDir(t *testing.T) {
	t.Setenv("TMPDIR", "/var/tmp")
	for _, tt := range []struct {
		uid           int
		runtime, want string
	}{
		{0, "", "/run/middleway"},
		{0, "/run/user/0", "/run/middleway"},
		{1000, "/run/user/1000", "/run/user/1000/middleway"},
		{1000, "", "/var/tmp/middleway-1000"},
	} {
		if got := defaultRunDir(tt.uid, tt.runtime); got != tt.want {
			t.Errorf("user %d, XDG_RUNTIME_DIR %q: got %s, want %s", tt.uid, tt.runtime, got, tt.want)
		}
	}
}

// Among the temporary files a run directory must be this user's alone; elsewhere the way there protects it.
func TestCheckRunDir(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	at := func(name string) string { return filepath.Join(tmp, name) }
	if err := errors.Join(
		os.Mkdir(at("middleway-1"), 0o700),
		os.Mkdir(at("middleway-2"), 0o755), os.Mkdir(at("middleway-2x"), 0o755),
		os.Symlink(at("middleway-1"), at("middleway-3")),
		os.WriteFile(at("middleway-4"), nil, 0o600),
		os.Mkdir(at("middleway-6"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	stranger := os.Geteuid() == 0
	if stranger {
		if err := os.Chown(at("middleway-6"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for path, refused := range map[string]bool{
		at("middleway-1"): false, at("middleway-1/up"): false, at("middleway-1/up/node-1"): false,
		at("middleway-2"): true, at("middleway-2/up"): true, at("x/../middleway-2"): true, at("middleway-2x"): false,
		at("middleway-3/up"): true, at("middleway-4"): true, at("middleway-5/up"): false, at("middleway-6/up"): stranger,
		tmp: false, "/": false, "middleway-2": false,
	} {
		err := CheckRunDir(path)
		if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "remove it, or set XDG_RUNTIME_DIR") {
			t.Errorf("%s: got %v, want refused: %v", path, err, refused)
		}
	}
}
