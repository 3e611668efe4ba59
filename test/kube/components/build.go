package components

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Build builds what is missing of the named components, or of all, together with what they are made from. It tells people about it on w,
// and says nothing where all is there. A second build waits until the first has ended. What was interrupted leaves nothing half built.
func (c Cache) Build(ctx context.Context, w io.Writer, names ...string) error {
	return c.build(ctx, w, false, names)
}

// Rebuild builds the named components, or all, whether they are missing or not.
func (c Cache) Rebuild(ctx context.Context, w io.Writer, names ...string) error {
	return c.build(ctx, w, true, names)
}

func (c Cache) build(ctx context.Context, w io.Writer, force bool, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if c.source == "" {
		return errors.New("the go.mod files of the components are not here: call kube in a checkout of middleway")
	}
	if len(c.due(chosen, force)) == 0 {
		return nil
	}
	unlock, err := c.lock(ctx, w)
	if err != nil {
		return err
	}
	defer unlock()
	todo := c.due(chosen, force) // which may be less by now
	var needs []Need
	for _, component := range todo {
		needs = append(needs, component.Packaged...)
	}
	if err := c.Provide(ctx, w, needs...); err != nil {
		return err
	}
	p := newProgress(w, len(todo))
	for i, component := range todo {
		if err := c.buildOne(ctx, component, p.step(i+1, component.title())); err != nil {
			return err
		}
	}
	return nil
}

// due returns which of the chosen have to be built: what is missing, and what is made from that.
func (c Cache) due(chosen []Component, force bool) []Component {
	due := map[string]bool{}
	for _, component := range chosen {
		due[component.Name] = force || !c.built(component) || slices.ContainsFunc(component.From, func(name string) bool { return due[name] })
	}
	return slices.DeleteFunc(slices.Clone(chosen), func(component Component) bool { return !due[component.Name] })
}

func (component Component) title() string {
	return strings.TrimSpace(component.Name + " " + component.Module.Version)
}

// buildOne builds one component aside, moves its files to their places and writes its stamp.
func (c Cache) buildOne(ctx context.Context, component Component, s *step) (err error) {
	log, err := c.newLog(component.Name)
	if err != nil {
		s.end("FAILED")
		return err
	}
	defer log.Close()
	defer func() {
		if err != nil {
			s.end("FAILED")
			err = fmt.Errorf("build %s: %w; %s has all that was said", component.Name, err, log.Name())
		}
	}()
	sources, err := c.sources(component)
	if err != nil {
		return err
	}
	work := filepath.Join(c.Dir, "work")
	if err := os.RemoveAll(work); err != nil { // what a build that was killed left
		return err
	}
	defer os.RemoveAll(work)
	aside := filepath.Join(work, "cache")
	if component.Name == ImagesName {
		err = c.pack(ctx, aside)
	} else {
		err = c.compile(ctx, component, aside, filepath.Join(work, "module"), &compilation{log: log, step: s})
	}
	if err != nil {
		return err
	}
	stamp := Stamp{Name: component.Name, Version: component.Module.Version, Recipe: component.recipe(), Sources: sources, Files: map[string]int64{}}
	if err := c.keep(aside, &stamp); err != nil {
		return err
	}
	stamp.Built, stamp.Seconds = time.Now().UTC().Round(time.Second), s.took().Round(100*time.Millisecond).Seconds()
	if err := c.writeStamp(stamp); err != nil {
		return err
	}
	s.end(fmt.Sprintf("%d s, %s", int(s.took().Seconds()+0.5), size(stamp.Size())))
	return nil
}

func (c Cache) newLog(name string) (*os.File, error) {
	dir := filepath.Join(c.Dir, "logs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(dir, name+".log"))
}

// keep moves the files below a folder to the same paths below the cache's, in place of those that the component had, and enters them in its
// stamp. Until the caller writes that, the component counts as missing.
func (c Cache) keep(aside string, stamp *Stamp) error {
	former, _ := c.stamp(stamp.Name)
	if err := os.Remove(c.stampFile(stamp.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := filepath.WalkDir(aside, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, aside+"/")
		if d.IsDir() {
			if path == aside {
				return nil
			}
			return os.MkdirAll(filepath.Join(c.Dir, name), 0o755)
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		stamp.Files[name] = st.Size()
		if built, err := buildinfo.ReadFile(path); err == nil {
			stamp.Go = built.GoVersion
		}
		return os.Rename(path, filepath.Join(c.Dir, name))
	})
	if err != nil {
		return err
	}
	for name := range former.Files {
		if _, ok := stamp.Files[name]; !ok {
			if err := os.Remove(filepath.Join(c.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
