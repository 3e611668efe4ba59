package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is a file or directory that an isolated process finds at a path, in place of what the machine has there. Nothing
// of the machine needs to be there: where the mount point is missing, the nearest directory above it becomes a private copy of
// itself, whose entries are the machine's, and the mount point is made in that. The machine's own files never change.
type Mount struct {
	Source   string `json:"source"` // a file or a directory
	Target   string `json:"target"` // an absolute path; symbolic links are followed
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// mounts makes mounts in the mount namespace of this process, which nobody shares.
type mounts struct {
	all     []Mount         // those nearer to the root first
	sources []*os.File      // of each, opened before anything hides them
	private map[string]bool // directories in which mount points may be made
	moved   bool            // the machine's root is at oldRoot
}

// newMounts opens what is to be mounted.
func newMounts(all []Mount) (*mounts, error) {
	ms := &mounts{all: slices.Clone(all), private: map[string]bool{}}
	slices.SortStableFunc(ms.all, func(a, b Mount) int { return depth(a.Target) - depth(b.Target) })
	for _, m := range ms.all {
		fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			ms.close()
			return nil, fmt.Errorf("open %s for %s: %w", m.Source, m.Target, err)
		}
		ms.sources = append(ms.sources, os.NewFile(uintptr(fd), m.Source))
	}
	return ms, nil
}

func (ms *mounts) close() { closeFiles(ms.sources) }

func (ms *mounts) make() error {
	for i, m := range ms.all {
		if err := ms.mount(ms.sources[i], m.Target); err != nil {
			return err
		}
	}
	for _, m := range ms.all { // last, since mount points may lie in one another
		if !m.ReadOnly {
			continue
		}
		if err := remountReadOnly(m.Target); err != nil {
			return fmt.Errorf("make %s read-only: %w", m.Target, err)
		}
	}
	return ms.leaveOldRoot()
}

func depth(path string) int { return len(elements(path)) }

// elements returns the names of a path.
func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// remountReadOnly keeps a mount's other restrictions, which an ordinary user may not lift.
func remountReadOnly(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME // statfs(2) has the same bits
	flags := uintptr(st.Flags)&kept | unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY
	return unix.Mount("", path, "", flags, "")
}

func (ms *mounts) mount(source *os.File, target string) error {
	info, err := source.Stat()
	if err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	at, err := ms.provide(target, info.IsDir())
	if err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	err = bind(pathOf(source), at)
	if errors.Is(err, unix.EINVAL) && info.Mode().IsRegular() { // it is in a Directory, from which the kernel mounts nothing
		err = bindCopy(source, at)
	}
	if err != nil {
		return fmt.Errorf("mount on %s: %w", target, err)
	}
	if info.IsDir() {
		ms.private[at] = true
	}
	return nil
}

// pathOf names an open file, wherever it is.
func pathOf(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// bindCopy mounts a copy of a file. The copy is in a tmpfs that ends with its mount.
func bindCopy(source *os.File, target string) error {
	b, err := os.ReadFile(pathOf(source))
	if err != nil {
		return err
	}
	fd, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0) // before the stage hides it
	if err != nil {
		return err
	}
	at := os.NewFile(uintptr(fd), target)
	defer at.Close()
	stage, err := mountStage()
	if err != nil {
		return err
	}
	copied := filepath.Join(stage, "copy")
	if err = os.WriteFile(copied, b, 0o644); err == nil {
		err = bind(copied, pathOf(at))
	}
	return errors.Join(err, unix.Unmount(stage, unix.MNT_DETACH))
}

// mountStage covers some directory with an empty tmpfs, for a moment.
func mountStage() (string, error) {
	entries, err := os.ReadDir("/")
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && e.Name() != "proc" })
	if i < 0 {
		return "", errors.New("the root directory has no directory but /proc")
	}
	stage := "/" + entries[i].Name()
	return stage, cover(stage, 0o755)
}

func bind(source, target string) error {
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// provide returns the mount point that a path names, and makes it where it is missing.
func (ms *mounts) provide(path string, dir bool) (string, error) {
	at, missing, err := resolve(path)
	if err != nil {
		return "", err
	}
	if len(missing) == 0 {
		return at, checkKind(at, dir)
	}
	if !ms.private[at] {
		if err := ms.mirror(at); err != nil {
			return "", fmt.Errorf("%s is missing on this machine, and %s cannot be copied to make it there: %w", path, at, err)
		}
		ms.private[at] = true
	}
	for i, name := range missing {
		at = filepath.Join(at, name)
		if i == len(missing)-1 && !dir {
			return at, os.WriteFile(at, nil, 0o644)
		}
		if err := os.MkdirAll(at, 0o755); err != nil {
			return "", err
		}
		ms.private[at] = true
	}
	return at, nil
}

func checkKind(path string, dir bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case dir && !info.IsDir():
		return errors.New("there is a file on this machine, where a directory is wanted")
	case !dir && info.IsDir():
		return errors.New("there is a directory on this machine, where a file is wanted")
	}
	return nil
}

// maxLinks is how many symbolic links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// resolve follows a path as far as it exists: at has no symbolic links, and nothing in it is called missing[0].
func resolve(path string) (at string, missing []string, err error) {
	at, missing = "/", elements(path)
	for links := 0; len(missing) > 0; {
		next := filepath.Join(at, missing[0])
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return at, missing, nil
		case err != nil:
			return "", nil, err
		case info.Mode().Type() == fs.ModeSymlink:
			to, err := os.Readlink(next)
			if err != nil {
				return "", nil, err
			}
			if links++; links > maxLinks {
				return "", nil, &fs.PathError{Op: "follow", Path: path, Err: unix.ELOOP}
			}
			if filepath.IsAbs(to) {
				at = "/"
			}
			missing = append(elements(to), missing[1:]...)
			continue
		case len(missing) > 1 && !info.IsDir():
			return "", nil, &fs.PathError{Op: "follow", Path: next, Err: unix.ENOTDIR}
		}
		at, missing = next, missing[1:]
	}
	return at, nil, nil
}

// mirror puts a private directory in the place of one, with the same entries: its files and directories are mounted there, with
// what is mounted in them, and its symbolic links are copied. It changes the working directory.
func (ms *mounts) mirror(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if dir == "/" {
		return ms.mirrorRoot(entries)
	}
	if err := os.Chdir(dir); err != nil { // the working directory stays in what the new one covers
		return err
	}
	if err := cover(dir, info.Mode()); err != nil {
		return err
	}
	return copyEntries(entries, dir)
}

// cover covers a directory with an empty tmpfs.
func cover(dir string, mode fs.FileMode) error {
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=%o", mode.Perm()))
}

// oldRoot is where the machine's root is, until all is mounted, in the one that takes its place.
const oldRoot = "/.middleway-old"

// mirrorRoot makes a private root directory. A mount on / would be entered by nobody, so this process moves to a new one.
func (ms *mounts) mirrorRoot(entries []fs.DirEntry) error {
	stage, err := mountStage() // what it covers is seen again when the root has moved there
	if err != nil {
		return err
	}
	if err := os.Mkdir(stage+oldRoot, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(stage, stage+oldRoot); err != nil {
		return fmt.Errorf("move the root directory: %w", err)
	}
	ms.moved = true
	if err := os.Chdir(oldRoot); err != nil {
		return err
	}
	return copyEntries(entries, "/")
}

// leaveOldRoot lets go of the machine's root. Until then the sources of mounts are in it.
func (ms *mounts) leaveOldRoot() error {
	if err := os.Chdir("/"); err != nil || !ms.moved {
		return err
	}
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root directory: %w", err)
	}
	return os.Remove(oldRoot)
}

// copyEntries mounts entries of the working directory in another one.
func copyEntries(entries []fs.DirEntry, to string) error {
	for _, e := range entries {
		err := copyEntry(e, filepath.Join(to, e.Name()))
		// What has gone in the meantime, or may not be seen, is left out.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("mount its entry %s: %w", e.Name(), err)
		}
	}
	return nil
}

func copyEntry(e fs.DirEntry, to string) error {
	switch {
	case e.Type() == fs.ModeSymlink:
		target, err := os.Readlink(e.Name())
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o644); err != nil {
			return err
		}
	}
	return bind(e.Name(), to)
}
