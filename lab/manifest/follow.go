package manifest

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a file must stay as it is before it is read: writers may take a while.
	settle = 500 * time.Millisecond
	// absence is how long a file must be away before its objects go: editors rename it, and put another one in its place.
	absence = 1500 * time.Millisecond
	// unrest bounds the wait of files for others that change all the time.
	unrest = 5 * time.Second
	// poll is how often files are looked at where nothing tells of changes, as in some network file systems.
	poll = 2 * time.Second
	// gather is the least time between two looks.
	gather = 50 * time.Millisecond
)

// State is what manifests hold by now.
type State struct {
	Objects  []Object         // all that are in force, in the order of Read
	Warnings []string         // that were not there before
	Mistakes map[string]error // of each file that has one; what it held before stays in force
}

// Follower reads manifests again when their files change. A file with a mistake keeps what it held before, and keeps no other
// file from being read; a file that was removed holds nothing.
type Follower struct {
	paths  []string
	check  func(Object) error
	warned map[string]bool
	files  map[string]*followed
	order  []string         // of files, as Read has it
	fixed  []Object         // of what can be read once only: standard input, pipes
	since  time.Time        // when something began to change; zero while nothing does
	denied map[string]error // of paths that may not be read
	untold bool             // denied has changed
}

// followed is a file.
type followed struct {
	path   string
	good   []Object  // in force
	latest []Object  // of the last reading; not in force if there is a mistake
	broken error     // the mistake in the file itself
	doubly error     // the mistake of an object that another file has
	seen   mark      // as it was the last time
	since  time.Time // when it was so first
	read   *mark     // as it was when it was read; nil before
}

// NewFollower returns a follower of the paths that Read was given, from whose result it goes on. check refuses objects
// that cannot be here although they are right in themselves.
func NewFollower(s *Set, check func(Object) error, paths ...string) *Follower {
	f := &Follower{paths: paths, check: check, warned: maps.Clone(s.warned), files: map[string]*followed{}}
	if f.warned == nil {
		f.warned = map[string]bool{}
	}
	for _, o := range s.Objects {
		name, _ := FileOf(o)
		if info, err := os.Stat(name); name == stdinName || err == nil && !info.Mode().IsRegular() {
			f.fixed = append(f.fixed, o)
			continue
		}
		file := f.file(name)
		file.good = append(file.good, o)
		file.latest = file.good
	}
	return f
}

// Once reports whether an object stands in what can be read once only, and so is not followed: standard input, or a pipe.
func (f *Follower) Once(o Object) bool { return slices.Contains(f.fixed, o) }

func (f *Follower) file(path string) *followed {
	if f.files[path] == nil {
		f.files[path] = &followed{path: path}
	}
	return f.files[path]
}

// Run calls changed whenever files were read again, until ctx ends. Where the kernel does not tell of changes, it looks for them.
func (f *Follower) Run(ctx context.Context, changed func(State)) {
	events := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err == nil { // else the user has no more of them
		var forwarding sync.WaitGroup
		defer forwarding.Wait()
		defer watcher.Close()
		forwarding.Go(func() { forward(watcher, events) })
	}
	for {
		wait := f.look(time.Now())
		if wait == 0 {
			if s, news := f.load(time.Now()); news {
				changed(s)
			}
		}
		if watcher != nil {
			for _, dir := range f.directories() {
				_ = watcher.Add(dir) // it is looked at in any case
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(gather, min(poll, wait))):
		case <-events:
			select {
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
		}
	}
}

// forward tells of events and errors, which may stand for lost events, until the watcher is closed.
func forward(w *fsnotify.Watcher, events chan<- struct{}) {
	for ok := true; ok; {
		select {
		case _, ok = <-w.Events:
		case _, ok = <-w.Errors:
		}
		select {
		case events <- struct{}{}:
		default: // there is one that was not taken yet
		}
	}
}

// look notes which files have changed, and returns the time until they are to be read: 0 for now, poll if there are none.
func (f *Follower) look(now time.Time) time.Duration {
	marks := f.marks()
	for path := range f.files {
		if _, ok := marks[path]; !ok {
			marks[path] = mark{}
		}
	}
	var last, first time.Time // when the files that have changed are ready
	for path, m := range marks {
		file := f.file(path)
		if m != file.seen || file.since.IsZero() {
			file.seen, file.since = m, now
		}
		if !file.changed() {
			continue
		}
		ready := file.ready()
		if ready.After(last) {
			last = ready
		}
		if first.IsZero() || ready.Before(first) {
			first = ready
		}
	}
	if f.untold {
		return 0
	}
	if last.IsZero() {
		f.since = time.Time{}
		return poll
	}
	if f.since.IsZero() {
		f.since = now
	}
	// What was saved together is taken up together.
	if most := f.since.Add(unrest); last.After(most) {
		last = later(first, most)
	}
	return max(0, last.Sub(now))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (f *followed) changed() bool { return f.read == nil || *f.read != f.seen }

// ready returns when a file that has changed may be read.
func (f *followed) ready() time.Time {
	if f.seen == (mark{}) {
		return f.since.Add(absence)
	}
	return f.since.Add(settle)
}

// load reads the files that are ready. It returns false if there was none.
func (f *Follower) load(now time.Time) (State, bool) {
	s := &Set{warned: f.warned}
	news := f.untold
	f.untold = false
	for path, file := range f.files {
		if !file.changed() || file.ready().After(now) {
			continue
		}
		if file.seen == (mark{}) {
			delete(f.files, path)
			news = true
			continue
		}
		news = file.load(s, f.check) || news
	}
	if !news {
		return State{}, false
	}
	f.since = time.Time{}
	f.resolve()
	return f.state(s.Warnings), true
}

// load reads a file. It returns false if that changes at this moment.
func (f *followed) load(warnings *Set, check func(Object) error) bool {
	s := &Set{warned: warnings.warned}
	err := s.read(nil, f.path)
	m, _ := markOf(f.path)
	if m != f.seen {
		return false
	}
	f.read, f.broken = &m, err
	if f.broken == nil && len(s.Objects)+len(s.others) == 0 && len(f.good) > 0 {
		f.broken = &Error{File: f.path, Problem: "no object is in it any more; remove the file if its objects are to go"}
	}
	for _, o := range s.Objects {
		if f.broken == nil {
			f.broken = check(o)
		}
	}
	if f.broken == nil {
		f.latest = s.Objects
	}
	warnings.Warnings = append(warnings.Warnings, s.Warnings...)
	return true
}

// present returns the files in the order of Read; those that Read would not find, in the order of their names, come last.
func (f *Follower) present() []*followed {
	var all []*followed
	for _, path := range f.order {
		if file := f.files[path]; file != nil {
			all = append(all, file)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f.files)) {
		if !slices.Contains(f.order, path) {
			all = append(all, f.files[path])
		}
	}
	return all
}

func (f *Follower) state(warnings []string) State {
	s := State{Objects: slices.Clone(f.fixed), Warnings: warnings, Mistakes: maps.Clone(f.denied)}
	for _, file := range f.present() {
		s.Objects = append(s.Objects, file.good...)
		switch {
		case file.broken != nil:
			s.Mistakes[file.path] = file.broken
		case file.doubly != nil:
			s.Mistakes[file.path] = file.doubly
		}
	}
	return s
}
