//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is left out exists: else a test that was renamed would run, or another one not.
func TestLeftOut(t *testing.T) {
	for _, l := range leftOut {
		files, err := filepath.Glob(filepath.Join("../..", l.pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %d files of tests, %v", l.pkg, len(files), err)
		}
		var all strings.Builder
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
		skipped := regexp.MustCompile(leftOutPattern(l.pkg))
		for name := range strings.FieldsSeq(l.tests) {
			if !strings.Contains(all.String(), "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s has no %s", l.pkg, name)
			}
			if !skipped.MatchString(name) || skipped.MatchString(name+"s") {
				t.Errorf("%s: %s is not what %v skips", l.pkg, name, skipped)
			}
		}
	}
	if got := leftOutPattern("stack/tun"); got != "" {
		t.Errorf("of stack/tun %q is left out, want nothing", got)
	}
}
