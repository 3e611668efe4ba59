package image

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// libraryDirs are where the dynamic linker looks without a cache and a configuration (ld.so(8)), with and without a directory for each
// architecture. An image has neither.
var libraryDirs = []string{"/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// Program adds a program of this machine to /bin, with the interpreter and the shared libraries it loads, which keep their paths.
// Where path is a symbolic link, for a program is called by several names, /bin has the link as well.
func (t *Tree) Program(path string) error {
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	target := "/bin/" + filepath.Base(file)
	if err := t.Loaded(target, file); err != nil {
		return fmt.Errorf("find what %s needs: %w", path, err)
	}
	if name := filepath.Base(path); name != filepath.Base(file) {
		t.Link("/bin/"+name, filepath.Base(file))
	}
	return nil
}

// Loaded adds an ELF file and what the kernel and the dynamic linker load together with it. What is no ELF file is added alone.
func (t *Tree) Loaded(target, from string) error {
	if e, ok := t.entries[target]; ok && e.from == from {
		return nil
	}
	if err := t.File(target, from); err != nil {
		return err
	}
	f, err := elf.Open(from)
	if err != nil {
		return nil // a script
	}
	defer f.Close()
	libraries, err := loaded(f)
	if err != nil {
		return err
	}
	for _, library := range libraries {
		file, err := filepath.EvalSymlinks(library)
		if err != nil {
			return err
		}
		if err := t.Loaded(library, file); err != nil {
			return err
		}
	}
	return nil
}

// loaded returns the paths of an ELF file's interpreter (PT_INTERP) and of the libraries that it names (DT_NEEDED).
func loaded(f *elf.File) ([]string, error) {
	var paths []string
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, err
		}
		paths = append(paths, string(b[:len(b)-1])) // ends with a zero byte
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path, err := findLibrary(name, f.FileHeader)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// findLibrary finds the first file of a name that is for the machine of header.
func findLibrary(name string, header elf.FileHeader) (string, error) {
	for _, pattern := range libraryDirs {
		found, _ := filepath.Glob(filepath.Join(pattern, name)) // fails only for a malformed pattern
		i := slices.IndexFunc(found, func(path string) bool { return isFor(path, header) })
		if i >= 0 {
			return found[i], nil
		}
	}
	return "", fmt.Errorf("%s: %w in %v", name, fs.ErrNotExist, libraryDirs)
}

func isFor(path string, header elf.FileHeader) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Class == header.Class && f.Machine == header.Machine
}
