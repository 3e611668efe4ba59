package middleway_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestDevContainer: the file parses as what tools take it for, JSON with comments, and asks for all that the demo needs.
func TestDevContainer(t *testing.T) {
	text, err := os.ReadFile(".devcontainer/devcontainer.json")
	if err != nil {
		t.Fatal(err)
	}
	var plain strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "//") { // ours stand on lines of their own
			plain.WriteString(line)
		}
	}
	var file struct {
		Name, Image, RemoteUser, PostCreateCommand string
		RunArgs                                    []string
		Customizations                             map[string]any
	}
	d := json.NewDecoder(strings.NewReader(plain.String()))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(file.Image, "/go:") || file.RemoteUser != "root" {
		t.Errorf("got image %q and user %q, want one with Go, and root", file.Image, file.RemoteUser)
	}
	for _, want := range []string{"--device=/dev/net/tun", "--cap-add=NET_ADMIN", "--cap-add=SYS_ADMIN"} {
		if !slices.Contains(file.RunArgs, want) {
			t.Errorf("runArgs: %s is missing in %q", want, file.RunArgs)
		}
	}
}
