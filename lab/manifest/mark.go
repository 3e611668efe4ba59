package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// mark tells two states of a file apart. The zero mark is of a file that is not there.
type mark struct {
	dev, inode     uint64
	size           int64
	modified, made unix.Timespec
}

// marks returns the files that are there. Those of a directory that cannot be read stay as they are.
func (f *Follower) marks() map[string]mark {
	marks := map[string]mark{}
	before := f.denied
	f.order, f.denied = nil, map[string]error{}
	for _, path := range f.paths {
		files, err := list(path)
		if err != nil {
			f.denied[path] = fmt.Errorf("read manifests: %w", err)
			for known, file := range f.files {
				if known == path || filepath.Dir(known) == path {
					marks[known] = file.seen
				}
			}
		}
		for _, file := range files {
			m, err := markOf(file)
			if err != nil {
				m = f.file(file).seen // it may not be looked at
			}
			if _, twice := marks[file]; !twice && (m != mark{} || f.files[file] != nil) {
				f.order = append(f.order, file)
				marks[file] = m
			}
		}
	}
	same := func(a, b error) bool { return a.Error() == b.Error() }
	f.untold = f.untold || !maps.EqualFunc(before, f.denied, same)
	return marks
}

// list returns the manifests at a path that may be read again; none if nothing is there.
func list(path string) ([]string, error) {
	if path == "-" {
		return nil, nil
	}
	info, err := os.Stat(path)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode().IsRegular():
		return []string{path}, nil
	case !info.IsDir():
		return nil, nil
	}
	files, err := manifestsIn(path)
	if missing(err) {
		return nil, nil
	}
	return files, err
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// markOf returns a file's mark; the zero one if it is not there.
func markOf(path string) (mark, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if missing(err) {
		return mark{}, nil
	}
	return mark{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, err
}

// directories returns those in which something happens when a file changes, comes or goes: of the files and of what they
// link to.
func (f *Follower) directories() []string {
	dirs := map[string]bool{}
	for _, path := range f.paths {
		if path == "-" {
			continue
		}
		dirs[filepath.Dir(path)] = true
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dirs[path] = true
		}
	}
	for path := range f.files {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs[filepath.Dir(real)] = true
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}
