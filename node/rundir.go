package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// DefaultRunDir returns where a daemon keeps its state by default: /run/middleway for root, and for an ordinary user middleway in
// $XDG_RUNTIME_DIR, or without that middleway-UID among the temporary files.
func DefaultRunDir() string { return defaultRunDir(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR")) }

func defaultRunDir(uid int, runtime string) string {
	switch {
	case uid == 0:
		return "/run/middleway"
	case runtime != "":
		return filepath.Join(runtime, "middleway")
	}
	return temporaryRunDir() + strconv.Itoa(uid)
}

// temporaryRunDir is the beginning of a default among the temporary files, without the uid.
func temporaryRunDir() string { return filepath.Join(os.TempDir(), "middleway-") }

// CheckRunDir refuses a directory that is, or is in, a default among the temporary files, if that is not this user's alone: where all
// users may write, another one could have made it first, and would say what lies in it. It is no error if there is none.
func CheckRunDir(dir string) error {
	rest, ok := strings.CutPrefix(filepath.Clean(dir), temporaryRunDir())
	uid, _, _ := strings.Cut(rest, "/")
	if _, err := strconv.ParseUint(uid, 10, 32); !ok || err != nil {
		return nil
	}
	top := temporaryRunDir() + uid
	st, err := os.Lstat(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whose the run directory is: %w", err)
	}
	if owner := st.Sys().(*syscall.Stat_t).Uid; !st.IsDir() || int(owner) != os.Geteuid() || st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a directory for user %d alone (mode 0700): remove it, or set XDG_RUNTIME_DIR to a directory of your own", top, os.Geteuid())
	}
	return nil
}
