package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/middleway-net/middleway/k8s/object"
)

// event looks at what the kernel says has changed: what matters is not what happened, but what is there now.
func (f *follower) event(e fsnotify.Event) {
	rel, err := filepath.Rel(f.Dir, e.Name)
	if err != nil {
		return
	}
	if _, _, ok := named(rel); ok {
		f.look(rel)
		return
	}
	if !holdsObjects(rel) {
		return
	}
	if e.Has(fsnotify.Create) {
		f.directory(rel)
	} else {
		f.gone(rel)
	}
}

// directory follows one that is new, with those in it, and looks at its files.
func (f *follower) directory(rel string) {
	if err := f.watcher.Add(filepath.Join(f.Dir, rel)); err != nil {
		return // it went again
	}
	entries, _ := os.ReadDir(filepath.Join(f.Dir, rel))
	for _, e := range entries {
		in := filepath.Join(rel, e.Name())
		if _, _, ok := named(in); ok {
			f.look(in)
		} else if e.IsDir() && holdsObjects(in) {
			f.directory(in)
		}
	}
}

// gone looks a second time at all files of a directory that is away.
func (f *follower) gone(rel string) {
	for _, kind := range object.Kinds {
		for _, name := range f.into.Names(kind) {
			if file, err := path(kind, name); err == nil && below(rel, file) {
				f.again[file] = time.Now().Add(f.settle)
			}
		}
	}
}

func below(dir, file string) bool {
	in, err := filepath.Rel(dir, file)
	return err == nil && filepath.IsLocal(in)
}

// look brings the object of a file into the store, or notes that the file is to be looked at again.
func (f *follower) look(rel string) {
	o, err := f.read(rel)
	if o == nil {
		f.again[rel] = time.Now().Add(f.settle)
		return
	}
	delete(f.again, rel)
	f.tell(rel, err)
	f.into.Set(o)
}

// second looks at files that were away, or held no object, for a while: now this counts.
func (f *follower) second(now time.Time) {
	for rel, due := range f.again {
		if now.Before(due) {
			continue
		}
		delete(f.again, rel)
		o, err := f.read(rel)
		switch {
		case o != nil:
			f.into.Set(o)
		case errors.Is(err, fs.ErrNotExist):
			if _, ok := f.complete(); !ok {
				return // all of it is going
			}
			kind, name, _ := named(rel)
			f.into.Delete(kind, name)
			err = nil
		}
		f.tell(rel, err)
	}
}

// tell logs what is wrong with a file, once; nil if nothing is.
func (f *follower) tell(rel string, err error) {
	if err == nil {
		delete(f.told, rel)
		return
	}
	if f.told[rel] != err.Error() {
		f.told[rel] = err.Error()
		f.Log.Warn("mistake in state folder", "file", filepath.Join(f.Dir, rel), "err", err)
	}
}

// read reads the object of a file. Where the object is nil, the error says why.
func (f *follower) read(rel string) (object.Object, error) {
	file := filepath.Join(f.Dir, rel)
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("this is no ordinary file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%d bytes are more than an object has, which is at most %d", info.Size(), maxFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return decode(rel, text)
}
