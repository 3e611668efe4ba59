package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Without a daemon there is still the machine, and the index says what is missing.
func TestReportOfThisMachine(t *testing.T) {
	cmd := reportCommand(reach{})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--run-dir", filepath.Join(t.TempDir(), "none"), "--metrics", "http://127.0.0.1:1/", "--file", "-"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	gz, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	index := ""
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(h.Name))
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(h.Name) == "index.txt" {
			index = string(text)
		}
	}
	for _, want := range []string{"report.json", "interfaces.txt", "settings.txt", "index.txt"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	for _, want := range []string{"missing  status.json: ", "missing  metrics.txt: "} {
		if !strings.Contains(index, want) {
			t.Errorf("%q is missing in\n%s", want, index)
		}
	}
}

// An archive is its owner's alone, also in the place of a file that was not.
func TestReportIsPrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.tar.gz")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	f := reportFlags{file: file}
	w, _, err := f.create(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 || st.Size() != 0 {
		t.Errorf("got %v, %v", st, err)
	}
}

func TestReportFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--local --context prod":                  "--local is this machine's daemon",
		"--local --dir /tmp/x":                    "--local is this machine's daemon",
		"--run-dir /run/middleway --context prod": "--run-dir is of this machine, --context of a real cluster",
		"--local --file /nowhere/report.tar.gz":   "there is no directory /nowhere",
	} {
		cmd := reportCommand(reach{})
		cmd.SetArgs(strings.Fields(args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}
