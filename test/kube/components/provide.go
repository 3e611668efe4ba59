package components

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Need is something that this machine has to have, and Debian's package of it.
type Need struct {
	Package string
	Program string // in PATH or where administrators' programs are; or
	File    string
}

// met reports whether the machine has it, from whatever package.
func (n Need) met() bool {
	if n.Program == "" {
		_, err := os.Stat(n.File)
		return err == nil
	}
	_, err := findProgram(n.Program)
	return err == nil
}

// findProgram looks for a program in PATH and in the folders that PATH often lacks.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}

// Provide installs Debian's packages of what is not here. Where that is impossible, for there is no apt-get or we are not root, the
// error names the packages.
func (c Cache) Provide(ctx context.Context, w io.Writer, needs ...Need) error {
	var packages []string
	for _, n := range needs {
		if !n.met() {
			packages = append(packages, n.Package)
		}
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs or headers are missing: install what is called %s in Debian", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("programs or headers are missing: as root, apt-get install %s", list)
	}
	log, err := c.newLog("apt-get")
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(w, "installing Debian's packages %s\n", list)
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w; %s has all that was said", args[0], err, log.Name())
		}
	}
	return nil
}
