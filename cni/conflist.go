package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"
)

// Conflist is the network configuration that has a container runtime attach pods by the plugin: a file in a directory of which the runtime
// takes the first by name.
type Conflist struct {
	// Path is the file, for example /etc/cni/net.d/10-middleway.conflist.
	Path string
	// Socket is the daemon's, as the plugin sees it on the host.
	Socket string
}

// text returns the file.
func (c Conflist) text() []byte {
	type plugin struct {
		Type         string          `json:"type"`
		Capabilities map[string]bool `json:"capabilities"`
		Socket       string          `json:"socket"`
	}
	b, _ := json.MarshalIndent(struct { // strings alone, which never fails
		Version string   `json:"cniVersion"`
		Name    string   `json:"name"`
		Plugins []plugin `json:"plugins"`
	}{"1.1.0", "middleway", []plugin{{PluginName, map[string]bool{"portMappings": true}, c.Socket}}}, "", "  ")
	return append(b, '\n')
}

// Write makes the file what it is to be, and the directory if there is none, and reports whether it was not. A runtime sees the former file
// or the whole new one.
func (c Conflist) Write() (changed bool, err error) {
	text := c.text()
	if has, err := os.ReadFile(c.Path); err == nil && bytes.Equal(has, text) {
		return false, nil
	}
	dir := filepath.Dir(c.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("write the network configuration: %w; mount the host's directory, mostly /etc/cni/net.d, there, or change cni.conflist", err)
	}
	if err := replace(c.Path, 0o644, bytes.NewReader(text)); err != nil {
		return false, fmt.Errorf("write the network configuration: %w; make %s writable, or change cni.conflist", err, dir)
	}
	return true, nil
}

// Remove removes the file, unless it is none of ours. It is no error if there is none.
func (c Conflist) Remove() error {
	if text, err := os.ReadFile(c.Path); errors.Is(err, fs.ErrNotExist) || err == nil && !ours(text) {
		return nil
	}
	if err := os.Remove(c.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the network configuration: %w", err)
	}
	return nil
}

// Before returns the path of another network's configuration that a runtime takes in the place of this one, "" if there is none.
func (c Conflist) Before() (string, error) {
	files, err := libcni.ConfFiles(filepath.Dir(c.Path), []string{".conf", ".conflist", ".json"}) // those of go-cni and ocicni
	if err != nil {
		return "", fmt.Errorf("look for other network configurations: %w", err)
	}
	slices.Sort(files)
	for _, f := range files {
		if f >= c.Path {
			return "", nil
		}
		if text, err := os.ReadFile(f); err == nil && ours(text) {
			continue
		}
		return f, nil
	}
	return "", nil
}

// ours reports whether a network configuration is one of the plugin, alone or with others.
func ours(text []byte) bool {
	type named struct {
		Type string `json:"type"`
	}
	var conf struct {
		named
		Plugins []named `json:"plugins"`
	}
	return json.Unmarshal(text, &conf) == nil &&
		(conf.Type == PluginName || slices.ContainsFunc(conf.Plugins, func(p named) bool { return p.Type == PluginName }))
}
