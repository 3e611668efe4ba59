package components

import (
	"bytes"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// compile builds a component's programs into the folder bin below aside. The folder scratch is not there yet.
func (c Cache) compile(ctx context.Context, component Component, aside, scratch string, out *compilation) error {
	target := filepath.Join(aside, "bin", component.Name)
	if len(component.Packages) > 1 {
		target += "/"
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	args := []string{"build", "-v"}
	if component.Test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-tags="+strings.Join(component.Tags, ","), "-ldflags="+component.linkerFlags(), "-o", target)
	cmd := c.goCommand(ctx, component, append(args, component.Packages...)...)
	if len(component.Without) > 0 {
		if err := c.leaveOut(ctx, component, scratch); err != nil {
			return err
		}
		cmd = c.goCommand(ctx, component, append(args, ".")...)
		cmd.Dir = scratch
	}
	cmd.Stdout, cmd.Stderr = out, out
	fmt.Fprintf(out.log, "cd %s && CGO_ENABLED=%s %s\n", cmd.Dir, cgo(component), strings.Join(cmd.Args, " "))
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("go %s: %w: %s", cmd.Args[1], err, out.complaint)
	}
	return nil
}

// linkerFlags leave out what debuggers read, and set the component's values.
func (component Component) linkerFlags() string {
	flags := []string{"-s", "-w"}
	for _, name := range slices.Sorted(maps.Keys(component.Values)) {
		flags = append(flags, "-X", name+"="+component.Values[name])
	}
	return strings.Join(flags, " ")
}

func cgo(component Component) string {
	if component.Cgo {
		return "1"
	}
	return "0"
}

// goCommand is a go command about the component's module. The caller's GOFLAGS stay in force; a workspace does not.
func (c Cache) goCommand(ctx context.Context, component Component, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = c.moduleDir(component.Module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo(component), "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // go removes its own temporary files then
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// leaveOut makes the folder scratch a module that holds the component's program without the imports that component.Without names, and
// requires what the component's module does. (go build -overlay refuses to replace files of the module cache.)
func (c Cache) leaveOut(ctx context.Context, component Component, scratch string) error {
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(c.moduleDir(component.Module), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scratch, name), text, 0o644); err != nil {
			return err
		}
	}
	files, err := c.programFiles(ctx, component)
	if err != nil {
		return err
	}
	left := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		without, removed, err := withoutImports(text, component.Without)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		for _, path := range removed {
			left[path] = true
		}
		if err := os.WriteFile(filepath.Join(scratch, filepath.Base(file)), without, 0o644); err != nil {
			return err
		}
	}
	for _, path := range component.Without {
		if !left[path] {
			return fmt.Errorf("%s does not import %s any more: take it out of the catalogue", component.Packages[0], path)
		}
	}
	return nil
}

// programFiles returns the paths of the Go files of a component's program.
func (c Cache) programFiles(ctx context.Context, component Component) ([]string, error) {
	cmd := c.goCommand(ctx, component, "list", "-find", "-f", "{{range .GoFiles}}{{$.Dir}}/{{.}} {{end}}", component.Packages[0])
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the files of %s: %w", component.Packages[0], err)
	}
	return strings.Fields(string(list)), nil
}

// withoutImports returns a Go file's text with spaces in place of some imports, and which of them it had.
func withoutImports(text []byte, paths []string) (without []byte, removed []string, err error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, "", text, parser.ImportsOnly)
	if err != nil {
		return nil, nil, err
	}
	without = bytes.Clone(text)
	for _, spec := range tree.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, nil, err
		}
		if !slices.Contains(paths, path) {
			continue
		}
		removed = append(removed, path)
		for i := fset.Position(spec.Pos()).Offset; i < fset.Position(spec.End()).Offset; i++ {
			without[i] = ' '
		}
	}
	return without, removed, nil
}
