package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/object"
)

const (
	// poll is how often an incomplete folder is looked at.
	poll = 100 * time.Millisecond
	// doubt is how often a followed folder is compared with that of its name: the kernel does not tell that a folder above it
	// was renamed.
	doubt = time.Second
	// settle is how long a file must be away, or no object, until that counts: not everybody writes by renaming.
	settle = 20 * time.Millisecond
	// maxFile bounds a file, in bytes; an API server takes no object over 1.5 MiB.
	maxFile = 4 << 20
	// buffered is how many of the kernel's events wait for us before it waits.
	buffered = 1024
)

// Source brings the objects of a state folder into a Store. It waits for the folder where there is none yet; when the folder or
// its marker goes, what it held stays in force until it is whole again. A file with a mistake is told once, and what it held
// before stays in force.
type Source struct {
	Dir string
	Log *slog.Logger
}

// Run follows the folder until ctx ends. It fails only where the kernel has no inotify to follow it by.
func (s *Source) Run(ctx context.Context, into *k8s.Store) error {
	f := &follower{dir: s.Dir, log: s.Log, into: into, told: map[string]string{}, again: map[string]time.Time{}}
	defer f.close()
	for {
		if err := f.begin(); err != nil {
			return err
		}
		if f.whole == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(poll):
			}
			continue
		}
		if !f.follow(ctx) {
			return nil
		}
	}
}

// follower is a running Source.
type follower struct {
	dir     string
	log     *slog.Logger
	into    *k8s.Store
	watcher *fsnotify.Watcher    // of whole
	whole   fs.FileInfo          // of the directory that was read and is followed; nil if none is
	told    map[string]string    // mistakes, by relative path
	again   map[string]time.Time // when to look a second time at files with which something is wrong, before that counts
}

func (f *follower) close() {
	if f.watcher != nil {
		f.watcher.Close()
	}
	f.watcher, f.whole = nil, nil
}

// begin reads the whole folder and begins to follow it, if it is complete.
func (f *follower) begin() error {
	f.close()
	dir, ok := f.complete()
	if !ok {
		return nil
	}
	var err error
	if f.watcher, err = fsnotify.NewBufferedWatcher(buffered); err != nil {
		return fmt.Errorf("follow state folder: %w; raise the sysctl fs.inotify.max_user_instances", err)
	}
	files, err := f.watch()
	if err == nil {
		f.replace(files)
	}
	if _, ok := f.complete(); !ok {
		return nil // it went meanwhile
	}
	if err != nil {
		return fmt.Errorf("follow state folder: %w; make it readable, or raise the sysctl fs.inotify.max_user_watches", err)
	}
	f.whole = dir
	return nil
}

// complete returns the folder if its marker is there.
func (f *follower) complete() (fs.FileInfo, bool) {
	dir, err := os.Stat(f.dir)
	_, missing := os.Stat(filepath.Join(f.dir, marker))
	return dir, err == nil && missing == nil
}

// watch follows all directories, and returns the files in them. It lists them again until none is new, since what is made
// before the kernel tells of changes would be missed.
func (f *follower) watch() (map[string]bool, error) {
	for followed := map[string]bool{}; ; {
		files, dirs, err := list(f.dir)
		if err != nil {
			return nil, err
		}
		news := false
		for rel := range dirs {
			if followed[rel] {
				continue
			}
			followed[rel], news = true, true
			if err := f.watcher.Add(filepath.Join(f.dir, rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		if !news {
			return files, nil
		}
	}
}

// replace makes what the files hold the only objects of the store. Where one holds none, what it held before stays.
func (f *follower) replace(files map[string]bool) {
	clear(f.again)
	var all []object.Object
	for rel := range files {
		kind, name, _ := named(rel)
		o, err := f.read(rel)
		if o == nil {
			f.again[rel] = time.Now().Add(settle)
			o = f.into.Get(kind, name)
		} else {
			f.tell(rel, err)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	if _, ok := f.complete(); ok {
		f.into.Replace(all, object.Kinds...)
	}
}

// follow brings changes into the store. It returns true when the folder is to be read anew, and false when ctx ends.
func (f *follower) follow(ctx context.Context) bool {
	tick := time.NewTicker(doubt)
	defer tick.Stop()
	var settled <-chan time.Time
	for {
		if settled == nil && len(f.again) > 0 {
			settled = time.After(settle)
		}
		select {
		case <-ctx.Done():
			return false
		case <-f.watcher.Errors: // events were lost
			return true
		case e := <-f.watcher.Events:
			f.event(e)
		case <-settled:
			settled = nil
			f.second(time.Now())
		case <-tick.C:
		}
		if now, ok := f.complete(); !ok || !os.SameFile(now, f.whole) {
			return true
		}
	}
}
