package middleway_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// README.ja.md says the same as README.md: as many sections, each with the same commands and links.
func TestReadmeInJapanese(t *testing.T) {
	english, japanese := readmeSections(t, "README.md"), readmeSections(t, "README.ja.md")
	if len(english) != len(japanese) {
		t.Fatalf("README.md has %d sections, README.ja.md %d", len(english), len(japanese))
	}
	for i, e := range english {
		j := japanese[i]
		if !slices.Equal(e.commands, j.commands) {
			t.Errorf("section %q: commands\n%q, in README.ja.md, %q,\n%q", e.heading, e.commands, j.heading, j.commands)
		}
		if !slices.Equal(e.links, j.links) {
			t.Errorf("section %q: links\n%q, in README.ja.md, %q,\n%q", e.heading, e.links, j.heading, j.links)
		}
	}
}

// readmeSection is what both languages have in common.
type readmeSection struct {
	heading  string
	commands []string // lines of its blocks, without comments
	links    []string // but those to the other language
}

var linkTo = regexp.MustCompile(`\]\(([^)]+)\)`)

func readmeSections(t *testing.T, file string) (all []readmeSection) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inBlock := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inBlock = !inBlock
		case !inBlock && strings.HasPrefix(line, "#"):
			all = append(all, readmeSection{heading: line})
		}
		if len(all) == 0 {
			t.Fatalf("%s does not begin with a heading", file)
		}
		s := &all[len(all)-1]
		if inBlock {
			command, _, _ := strings.Cut(line, "  # ")
			s.commands = append(s.commands, strings.TrimSpace(command))
			continue
		}
		for _, m := range linkTo.FindAllStringSubmatch(line, -1) {
			if !strings.HasPrefix(m[1], "README") {
				s.links = append(s.links, m[1])
			}
			if target, _, _ := strings.Cut(m[1], "#"); !strings.Contains(m[1], "://") {
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: a link leads nowhere: %v", file, err)
				}
			}
		}
	}
	return all
}
