// Package report makes an archive for whoever is asked for help: what a stranger has to know of a cluster, a playground or a node, and
// nothing that is a secret.
//
//	cluster ── objects, stripped to named fields ─┐
//	        ── logs, Events ──────────────────────┼─► scrub ─► anonymise, if asked ─► tar.gz, with index.txt
//	        ── middleway report --local, by exec ─┘
//
// Objects are not copied: the fields that go in are named one by one (objects.go), so that what Kubernetes has tomorrow does not go in by
// itself. Secrets are never asked for. Everything is scrubbed of what looks like a secret all the same (scrub.go), since logs may have
// anything. A part that is missing is a line in the index, and the rest goes on.
package report

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// index is the name of the list of entries in an archive.
const index = "index.txt"

// Entry is a line of the index.
type Entry struct {
	Name    string `json:"name"`
	Bytes   int    `json:"bytes"`
	Missing string `json:"missing,omitempty"` // why it is not there
}

// Archive is one that is being written. It is for one goroutine.
type Archive struct {
	gz      *gzip.Writer
	tar     *tar.Writer
	rewrite func([]byte) []byte
	now     time.Time
	told    func(Entry)
	entries []Entry
	err     error // of writing
}

// New begins an archive. addresses rewrites what is scrubbed already; nil leaves it. told hears of each entry; it may be nil.
func New(w io.Writer, addresses func([]byte) []byte, told func(Entry)) *Archive {
	a := &Archive{gz: gzip.NewWriter(w), now: time.Now(), told: told}
	a.tar = tar.NewWriter(a.gz)
	a.rewrite = func(b []byte) []byte {
		if b = scrub(b); addresses != nil {
			b = addresses(b)
		}
		return b
	}
	return a
}

// folder is that of all entries in the archive.
const folder = "middleway-report"

// Add writes text under a name, or notes why there is none. Part of a text is better than nothing: both are written then.
func (a *Archive) Add(name string, text []byte, err error) {
	name = string(a.rewrite([]byte(name)))
	e := Entry{Name: name}
	if err != nil {
		e.Missing = strings.ReplaceAll(string(a.rewrite([]byte(err.Error()))), "\n", "; ")
	}
	if len(text) > 0 {
		text = a.rewrite(text)
		e.Bytes = len(text)
		a.write(name, text)
	} else if err == nil {
		e.Missing = "is empty"
	}
	a.entries = append(a.entries, e)
	if a.told != nil {
		a.told(e)
	}
}

// AddJSON writes a value, or notes why there is none.
func (a *Archive) AddJSON(name string, v any, err error) {
	if err != nil {
		a.Add(name, nil, err)
		return
	}
	text, err := json.MarshalIndent(v, "", "  ")
	a.Add(name, text, err)
}

func (a *Archive) write(name string, text []byte) {
	if a.err != nil {
		return
	}
	h := &tar.Header{Name: path.Join(folder, name), Mode: 0o600, Size: int64(len(text)), ModTime: a.now, Typeflag: tar.TypeReg}
	if a.err = a.tar.WriteHeader(h); a.err == nil {
		_, a.err = a.tar.Write(text)
	}
}

// Close writes the index and ends the archive.
func (a *Archive) Close() error {
	var b strings.Builder
	for _, e := range a.entries {
		switch {
		case e.Missing == "":
			fmt.Fprintf(&b, "%10d  %s\n", e.Bytes, e.Name)
		case e.Bytes > 0:
			fmt.Fprintf(&b, "%10d  %s%s%s\n", e.Bytes, e.Name, notAll, e.Missing)
		default:
			fmt.Fprintf(&b, "   missing  %s: %s\n", e.Name, e.Missing)
		}
	}
	a.write(index, []byte(b.String()))
	return errors.Join(a.err, a.tar.Close(), a.gz.Close())
}

// Missing counts the parts that are not there, or not whole.
func (a *Archive) Missing() (n int) {
	for _, e := range a.entries {
		if e.Missing != "" {
			n++
		}
	}
	return n
}

// about is who made the archive, when, and of what.
type about struct {
	Version    string    `json:"version"`
	Made       time.Time `json:"made"`
	Of         string    `json:"of"`
	Anonymised bool      `json:"anonymised"`
}

// AddAbout says in the archive what it is.
func (a *Archive) AddAbout(version, of string, anonymised bool) {
	a.AddJSON("report.json", about{version, a.now.UTC().Truncate(time.Second), of, anonymised}, nil)
}

// copyFrom adds all entries of another archive below a folder. Those that the other could not have, or not all of, stay so.
func (a *Archive) copyFrom(below string, archive io.Reader) error {
	gz, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	var names []string
	texts := map[string][]byte{}
	missing := map[string]error{}
	for t := tar.NewReader(io.LimitReader(gz, maxLocal)); ; {
		h, errNext := t.Next()
		if errNext != nil {
			err = errNext
			break
		}
		text, errText := io.ReadAll(io.LimitReader(t, maxPart))
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/"+folder+"/")
		if name == index {
			for _, e := range missingIn(text) {
				missing[e.Name] = errors.New(e.Missing)
				names = append(names, e.Name)
			}
			continue
		}
		names, texts[name] = append(names, name), text
		if errText != nil {
			missing[name] = errText
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		a.Add(path.Join(below, name), texts[name], missing[name])
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// notAll stands in the index between the name of an entry and why it is not whole.
const notAll = ", not all of it: "

// missingIn returns the entries of an index that are not there, or not whole.
func missingIn(text []byte) (all []Entry) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		size, rest, _ := strings.Cut(line, "  ")
		if name, why, ok := strings.Cut(rest, ": "); ok && size == "missing" {
			all = append(all, Entry{Name: name, Missing: why})
		} else if name, why, ok := strings.Cut(rest, notAll); ok {
			all = append(all, Entry{Name: name, Missing: why})
		}
	}
	return all
}

// The greatest size of a part, and of all that a daemon's container reports on itself, packed and unpacked, in bytes.
const (
	maxPart  = 16 << 20
	maxLocal = 256 << 20
)

// partPatience is how long each part may take.
const partPatience = 30 * time.Second

// part calls make with the time that a part has.
func part[T any](ctx context.Context, make func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, partPatience, fmt.Errorf("it took longer than %v", partPatience))
	defer cancel()
	v, err := make(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return v, err
}
