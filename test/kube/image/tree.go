package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"time"
)

// A Tree is the file system of a layer. Paths are absolute; the directories above a file are there by themselves, with mode 0755. What is
// added at a path takes the place of what was there. All belongs to root. The zero value is an empty tree.
type Tree struct {
	entries map[string]entry
}

// An entry is a directory, a symbolic link, a text, or a file of this machine.
type entry struct {
	mode fs.FileMode // with fs.ModeDir for directories
	link string      // where a symbolic link leads
	from string      // path of the file on this machine
	text string
}

func (t *Tree) add(name string, e entry) {
	if t.entries == nil {
		t.entries = map[string]entry{}
	}
	name = path.Clean(name)
	t.entries[name] = e
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.entries[dir] = entry{mode: fs.ModeDir | 0o755}
		}
	}
}

// Dir adds a directory with the permissions of mode, to which fs.ModeSticky belongs.
func (t *Tree) Dir(name string, mode fs.FileMode) { t.add(name, entry{mode: fs.ModeDir | mode}) }

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.add(name, entry{mode: fs.ModeSymlink | 0o777, link: target})
}

// Text adds a file of mode 0644.
func (t *Tree) Text(name, text string) { t.add(name, entry{mode: 0o644, text: text}) }

// File adds the file of this machine that from names or leads to, with mode 0755 where it may be executed, else 0644.
func (t *Tree) File(name, from string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("pack %s: it is no regular file", from)
	}
	mode := fs.FileMode(0o644)
	if st.Mode()&0o111 != 0 {
		mode = 0o755
	}
	t.add(name, entry{mode: mode, from: from})
	return nil
}

// writeTar writes the tree in the order of the paths, so that a directory precedes what is in it.
func (t *Tree) writeTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if err := writeEntry(tw, name[1:], t.entries[name]); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, name string, e entry) error {
	header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: int64(e.mode.Perm()), Linkname: e.link, ModTime: time.Unix(0, 0), Size: int64(len(e.text))}
	if e.mode&fs.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	switch {
	case e.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
	case e.link != "":
		header.Typeflag = tar.TypeSymlink
	case e.from != "":
		return copyFile(tw, header, e.from)
	}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.WriteString(tw, e.text)
	return err
}

func copyFile(tw *tar.Writer, header *tar.Header, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	header.Size = st.Size()
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
