package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// executor executes plugins like libcni's own, and tells of each as it starts, so that a test can kill it.
type executor struct {
	version.PluginDecoder

	mu      sync.Mutex
	started func(*os.Process) // may be nil
	stdout  []byte            // of the last one
}

var _ invoke.Exec = (*executor)(nil)

func newExecutor() *executor { return &executor{} }

// onStart has f called with each plugin that starts.
func (e *executor) onStart(f func(*os.Process)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = f
}

func (e *executor) output() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stdout
}

func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &out, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	if e.started != nil {
		e.started(cmd.Process)
	}
	e.mu.Unlock()
	err := cmd.Wait()
	e.mu.Lock()
	e.stdout = bytes.Clone(out.Bytes())
	e.mu.Unlock()
	if err == nil {
		return out.Bytes(), nil
	}
	var said types.Error
	if json.Unmarshal(out.Bytes(), &said) != nil || said.Code == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s %s", out.Bytes(), stderr.Bytes()))
	}
	return nil, &said
}

func (e *executor) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}
