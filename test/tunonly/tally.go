//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// tally counts what go test tells and keeps what nobody should miss.
type tally struct {
	w                       io.Writer
	passed, failed, skipped int
	reasons                 map[string][]string // of skipped tests
	output                  map[string][]byte   // of tests that run
}

// An event is a line of go test -json, as `go doc test2json` has it.
type event struct {
	Action, Package, Test, Output string
}

func newTally(w io.Writer) *tally {
	return &tally{w: w, reasons: map[string][]string{}, output: map[string][]byte{}}
}

// read prints what go test says about packages and failed tests.
func (t *tally) read(events io.Reader) error {
	for d := json.NewDecoder(events); ; {
		var e event
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the events: %w", err)
		}
		t.add(e)
	}
}

func (t *tally) add(e event) {
	name := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.w, e.Output)
	case "output":
		if e.Test == "" && e.Output != "PASS\n" {
			fmt.Fprint(t.w, e.Output)
			return
		}
		t.output[name] = append(t.output[name], e.Output...)
	case "pass", "fail", "skip":
		if e.Test != "" {
			t.end(e, string(t.output[name]))
		}
		delete(t.output, name)
	}
}

// end counts a test.
func (t *tally) end(e event, output string) {
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		fmt.Fprint(t.w, output)
	case "skip":
		t.skipped++
		test := strings.TrimPrefix(e.Package, modulePath+"/") + " " + e.Test
		t.reasons[reason(output)] = append(t.reasons[reason(output)], test)
	}
}

const modulePath = "github.com/middleway-net/middleway"

// reason is what a skipped test said, without the place.
func reason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") || line == "" {
			continue
		}
		if place, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(place, "_test.go:") {
			line = rest
		}
		words = append(words, line)
	}
	return strings.Join(words, " ")
}

// print lists the skipped tests by their reasons, and counts all.
func (t *tally) print() {
	for _, reason := range slices.Sorted(maps.Keys(t.reasons)) {
		fmt.Fprintf(t.w, "skipped: %s\n", reason)
		for _, test := range t.reasons[reason] {
			fmt.Fprintf(t.w, "    %s\n", test)
		}
	}
	fmt.Fprintf(t.w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
