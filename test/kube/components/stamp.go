package components

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// A Stamp says what a component in the cache was built from. It is written last and removed first, so that what has one is whole.
// The version of Go is for the reader: a newer Go makes no other component.
type Stamp struct {
	Name    string
	Version string // of the module
	Recipe  string // digest of the Component, operating system and architecture
	Sources string // digest of go.mod and go.sum, of sources of ours, and of the stamps of what it is made from
	Go      string // that built it
	Built   time.Time
	Seconds float64          // that this took
	Files   map[string]int64 // sizes in bytes, by the path below the cache's folder
}

// Size is that of all files together, in bytes.
func (s Stamp) Size() (sum int64) {
	for _, size := range s.Files {
		sum += size
	}
	return sum
}

func (c Cache) stampFile(name string) string {
	return filepath.Join(c.Dir, "stamps", name+".json")
}

// stamp reads the stamp of a component; the second result says whether there is one and its files have the sizes that they had.
func (c Cache) stamp(name string) (Stamp, bool) {
	text, err := os.ReadFile(c.stampFile(name))
	if err != nil {
		return Stamp{}, false
	}
	var s Stamp
	if json.Unmarshal(text, &s) != nil {
		return Stamp{}, false
	}
	for path, size := range s.Files {
		if st, err := os.Stat(filepath.Join(c.Dir, path)); err != nil || st.Size() != size {
			return Stamp{}, false
		}
	}
	return s, true
}

// built reports whether a component is there as a build would make it now. Away from a checkout its sources are not compared.
func (c Cache) built(component Component) bool {
	s, ok := c.stamp(component.Name)
	if !ok || s.Recipe != component.recipe() {
		return false
	}
	if c.source == "" {
		return true
	}
	sources, err := c.sources(component)
	return err == nil && s.Sources == sources
}

// recipe is a digest of everything in the catalogue that decides what the component is.
func (component Component) recipe() string {
	text, err := json.Marshal(struct {
		Component
		System string
	}{component, runtime.GOOS + "/" + runtime.GOARCH})
	if err != nil {
		panic(err) // a Component is strings
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// sources is a digest of everything in files that decides what the component is.
func (c Cache) sources(component Component) (string, error) {
	dir := c.moduleDir(component.Module)
	files := []string{filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum")}
	if component.Module == own {
		for _, pkg := range component.Packages {
			more, err := filepath.Glob(filepath.Join(dir, filepath.Base(pkg), "*.go"))
			if err != nil {
				return "", err
			}
			files = slices.Concat([]string{}, more)
		}
	}
	for _, name := range component.From {
		files = append(files, c.stampFile(name))
	}
	h := sha256.New()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (c Cache) writeStamp(s Stamp) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	name := c.stampFile(s.Name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
