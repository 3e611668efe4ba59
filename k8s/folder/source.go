package folder

import (
	"cmp"
	"context"
	"errors"
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
	// doubt is how often a followed folder is compared with that of its name, as the kernel does not tell that a folder above it
	// was renamed; and how often it is read where the kernel tells nothing.
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

	newWatcher func() (*fsnotify.Watcher, error) // default: fsnotify's
	settle     time.Duration                     // default: the constant
}

// Run follows the folder until ctx ends. Where the kernel does not tell of changes, as it has no more watches for this user, it
// reads the folder each second. The error is always nil.
func (s *Source) Run(ctx context.Context, into *k8s.Store) error {
	f := &follower{Source: *s, into: into, told: map[string]string{}, again: map[string]time.Time{}}
	f.settle = cmp.Or(f.settle, settle)
	if f.newWatcher == nil {
		f.newWatcher = func() (*fsnotify.Watcher, error) { return fsnotify.NewBufferedWatcher(buffered) }
	}
	defer f.close()
	for {
		f.begin()
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
	Source
	into    *k8s.Store
	watcher *fsnotify.Watcher    // of whole; nil where the kernel does not tell of changes
	whole   fs.FileInfo          // of the directory that was read and is followed; nil if none is
	told    map[string]string    // mistakes, by relative path
	polls   bool                 // it was told that there are no more watches
	again   map[string]time.Time // when to look a second time at files with which something is wrong, before that counts
}

func (f *follower) close() {
	if f.watcher != nil {
		f.watcher.Close()
	}
	f.watcher, f.whole = nil, nil
}

// begin reads the whole folder and begins to follow it, if it is complete.
func (f *follower) begin() {
	f.close()
	dir, ok := f.complete()
	if !ok {
		return
	}
	files, err := f.watch()
	if err != nil {
		f.close()
		files, _, err = list(f.Dir)
	}
	if err == nil {
		f.replace(files)
	}
	if _, ok := f.complete(); !ok {
		return // it went meanwhile
	}
	if err == nil {
		f.whole = dir
	}
	f.tell(".", err)
}

// complete returns the folder if its marker is there.
func (f *follower) complete() (fs.FileInfo, bool) {
	dir, err := os.Stat(f.Dir)
	_, missing := os.Stat(filepath.Join(f.Dir, marker))
	return dir, err == nil && missing == nil
}

// watch has the kernel tell of changes in all directories, and returns the files in them. It lists them again until none is new,
// since what is made before the kernel tells of changes would be missed.
func (f *follower) watch() (files map[string]bool, err error) {
	if f.watcher, err = f.newWatcher(); err != nil {
		f.withoutWatches(err, "max_user_instances")
		return nil, err
	}
	for followed := map[string]bool{}; ; {
		files, dirs, err := list(f.Dir)
		if err != nil {
			return nil, err
		}
		news := false
		for rel := range dirs {
			if followed[rel] {
				continue
			}
			followed[rel], news = true, true
			if err := f.watcher.Add(filepath.Join(f.Dir, rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.withoutWatches(err, "max_user_watches")
				return nil, err
			}
		}
		if !news {
			return files, nil
		}
	}
}

// withoutWatches tells once that the kernel has no more watches.
func (f *follower) withoutWatches(err error, limit string) {
	if !f.polls {
		f.polls = true
		f.Log.Warn("the state folder is read each second, as the kernel does not tell of its changes; raise the sysctl fs.inotify."+limit, "err", err)
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
			f.again[rel] = time.Now().Add(f.settle)
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
	var events <-chan fsnotify.Event
	var lost <-chan error
	if f.watcher != nil {
		events, lost = f.watcher.Events, f.watcher.Errors
	}
	for {
		if settled == nil && len(f.again) > 0 {
			settled = time.After(f.settle)
		}
		select {
		case <-ctx.Done():
			return false
		case <-lost: // events were
			return true
		case e := <-events:
			f.event(e)
		case <-settled:
			settled = nil
			f.second(time.Now())
		case <-tick.C:
			if f.watcher == nil {
				return true
			}
		}
		if now, ok := f.complete(); !ok || !os.SameFile(now, f.whole) {
			return true
		}
	}
}
