package components

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// A Cache is the folder where components are kept:
//
//	bin/NAME          the programs
//	bin/cni/NAME      the reference CNI plugins
//	images/*.tar      OCI archives
//	stamps/NAME.json  what a component was built from
//	logs/NAME.log     what its last build printed
//
// The zero value is not usable; Open gives one.
type Cache struct {
	Dir    string // absolute
	source string // the folder of this package in a checkout; "" where none was found
}

// Open returns the cache in $MIDDLEWAY_KUBE_DIR, else in $XDG_CACHE_HOME/middleway-kube, else in ~/.cache/middleway-kube, and makes the
// folder where there is none.
func Open() (Cache, error) {
	dir := os.Getenv("MIDDLEWAY_KUBE_DIR")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return Cache{}, fmt.Errorf("no folder for the cache: set MIDDLEWAY_KUBE_DIR: %w", err)
		}
		dir = filepath.Join(base, "middleway-kube")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Cache{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Cache{}, fmt.Errorf("make the cache: %w; MIDDLEWAY_KUBE_DIR names another folder", err)
	}
	return Cache{Dir: dir, source: findSource()}, nil
}

// Bin is the path of a program.
func (c Cache) Bin(name string) string { return filepath.Join(c.Dir, "bin", name) }

// CNI is the folder of the reference CNI plugins: bridge, ptp, host-local, portmap, loopback and more.
func (c Cache) CNI() string { return c.Bin("cni") }

// Images returns the paths of the archives to import, each of which may hold several images.
func (c Cache) Images() ([]string, error) {
	stamp, ok := c.stamp(ImagesName)
	if !ok {
		return nil, fmt.Errorf("no images in %s: kube build %s makes them", c.Dir, ImagesName)
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(stamp.Files)) {
		paths = append(paths, filepath.Join(c.Dir, name))
	}
	return paths, nil
}

// Missing returns which of the named components, or of all, have to be built: those that are not there, and those that were built from
// something else than what a build would take now. An unknown name is missing.
func (c Cache) Missing(names ...string) []string {
	if len(names) == 0 {
		names = Names()
	}
	var missing []string
	for _, name := range names {
		component, ok := find(name)
		if members, isGroup := groups[name]; isGroup {
			missing = append(missing, c.Missing(members...)...)
		} else if !ok || !c.built(component) {
			missing = append(missing, name)
		}
	}
	return missing
}
