package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// aside is how files are called while they are not whole yet, with a random end. No runtime looks for plugins or configurations of such a
// name: plugins are called by theirs, and configurations end with .conf, .conflist or .json.
const aside = "." + PluginName + "-"

// Installed tells what Install did.
type Installed struct {
	// Plugin is the path of the plugin, Changed whether it had to be written.
	Plugin  string
	Changed bool
	// Loopback: a link called loopback leads to the plugin, which is the plugin loopback under that name.
	Loopback bool
}

// Install puts the plugin, which is the executable file from, into a directory of a container runtime's plugins. The former plugin stays
// whole until the new one has taken its place, also where this process or the machine ends meanwhile; an equal one is left as it is. A
// runtime that wants a plugin called loopback (containerd, unless use_internal_loopback is set) gets ours, where the directory has none.
func Install(from, dir string) (Installed, error) {
	in := Installed{Plugin: filepath.Join(dir, PluginName)}
	src, err := os.Open(from)
	if err != nil {
		return in, fmt.Errorf("read the plugin: %w; it has to be beside this program, as in its image", err)
	}
	defer src.Close()
	same, err := equal(src, in.Plugin)
	if err == nil && !same {
		in.Changed = true
		err = replace(in.Plugin, 0o755, src)
	}
	if err == nil {
		in.Loopback, err = linkLoopback(dir)
	}
	if err != nil {
		return in, fmt.Errorf("install the plugin: %w", installRemedy(err, dir))
	}
	return in, nil
}

// Uninstall removes what Install has put into dir. It is no error if there is nothing.
func Uninstall(dir string) error {
	var errs []error
	if ourLoopback(dir) {
		errs = append(errs, os.Remove(filepath.Join(dir, loopbackName)))
	}
	if err := os.Remove(filepath.Join(dir, PluginName)); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the plugin: %w", err)
	}
	return nil
}

// equal reports whether the file at path is an executable with the content of src, which is at its start before and after.
func equal(src *os.File, path string) (bool, error) {
	dst, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dst.Close()
	a, err := src.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Lstat(path)
	if err != nil || a.Size() != b.Size() || b.Mode() != 0o755 {
		return false, err
	}
	same, err := sameBytes(src, dst)
	if err != nil {
		return false, err
	}
	_, err = src.Seek(0, io.SeekStart)
	return same, err
}

// sameBytes compares two readers to their end.
func sameBytes(a, b io.Reader) (bool, error) {
	const step = 64 << 10
	x, y := make([]byte, step), make([]byte, step)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if errA != nil {
			return true, nil
		}
	}
}

// replace makes what r has the content of the file at path. Readers see the former file or the whole new one, and so they do when the
// machine has lost its power. What an earlier replace left unfinished in that directory is removed. Errors name path alone, so that the same
// one has the same words each time.
func replace(path string, mode fs.FileMode, r io.Reader) error {
	var at *fs.PathError
	var between *os.LinkError
	switch err := replaceAside(path, mode, r); {
	case errors.As(err, &at):
		return &fs.PathError{Op: at.Op, Path: path, Err: at.Err}
	case errors.As(err, &between):
		return &fs.PathError{Op: between.Op, Path: path, Err: between.Err}
	default:
		return err
	}
}

// replaceAside is replace, with errors that may name the file aside.
func replaceAside(path string, mode fs.FileMode, r io.Reader) (err error) {
	dir := filepath.Dir(path)
	left, _ := filepath.Glob(filepath.Join(dir, aside+"*"))
	for _, l := range left {
		_ = os.Remove(l)
	}
	f, err := os.CreateTemp(dir, aside+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, r); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir writes the names in a directory to its disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// installRemedy says what to do about an error in a directory of plugins.
func installRemedy(err error, dir string) error {
	switch st, bad := os.Stat(dir); {
	case errors.Is(bad, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist; name the container runtime's directory of CNI plugins, mostly /opt/cni/bin, by --bin-dir, and in a pod mount it there (hostPath, type DirectoryOrCreate)", dir)
	case bad == nil && !st.IsDir():
		return fmt.Errorf("%s is no directory; name the container runtime's directory of CNI plugins, mostly /opt/cni/bin, by --bin-dir", dir)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; mount %s without readOnly, or name a directory of plugins that can be written, where the host's /opt is read-only, and give it to the container runtime too (containerd: bin_dirs)", err, dir)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w; make room in the file system of %s", err, dir)
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return fmt.Errorf("%w; make root the owner of %s, or give this container CAP_DAC_OVERRIDE", err, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run as root of the host, or make %s writable for user %d", err, dir, os.Geteuid())
	}
	return err
}
