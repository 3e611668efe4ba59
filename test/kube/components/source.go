package components

import (
	"os"
	"path/filepath"
)

// findSource looks for the folder of this package in the checkout that holds the working directory, or else the program itself.
func findSource() string {
	var from []string
	if dir, err := os.Getwd(); err == nil {
		from = append(from, dir)
	}
	if program, err := os.Executable(); err == nil {
		from = append(from, filepath.Dir(program))
	}
	for _, dir := range from {
		for ; ; dir = filepath.Dir(dir) {
			for _, below := range []string{"components", "test/kube/components"} {
				folder := filepath.Join(dir, below)
				if _, err := os.Stat(filepath.Join(folder, kubernetes.Folder, "go.mod")); err == nil {
					return folder
				}
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return ""
}

// moduleDir is where go commands about a module run: in the folder that has its go.mod.
func (c Cache) moduleDir(m Module) string {
	if m.Folder == "" {
		return filepath.Dir(c.source)
	}
	return filepath.Join(c.source, m.Folder)
}
