//go:build linux

package main

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
)

// minimalPrograms are all that the minimal root has besides Go: make, and the shell by which it runs what is not a plain command.
var minimalPrograms = []string{"make", "sh"}

// libraryDirs are where the dynamic linker looks without a cache or configuration of its own (ld.so(8)), on systems with and
// without directories for each architecture.
var libraryDirs = []string{"/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// programFiles maps the path of every file that the programs need, in the minimal root, to the machine's own, which is no symbolic
// link: the programs go to /bin, interpreters and shared libraries to where they are looked for.
func programFiles(names ...string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, err
		}
		if err := addFile(files, "/bin/"+name, path); err != nil {
			return nil, fmt.Errorf("find what %s needs: %w", path, err)
		}
	}
	return files, nil
}

// addFile adds an ELF file and what the kernel and the dynamic linker load together with it.
func addFile(files map[string]string, target, path string) error {
	if files[target] != "" {
		return nil
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	files[target] = path
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var loaded []string
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return err
		}
		loaded = append(loaded, string(b[:len(b)-1])) // ends with a zero byte
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range needed {
		library, err := findLibrary(name, f.FileHeader)
		if err != nil {
			return err
		}
		loaded = append(loaded, library)
	}
	for _, l := range loaded {
		if err := addFile(files, l, l); err != nil {
			return err
		}
	}
	return nil
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
