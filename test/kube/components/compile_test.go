package components

import (
	"slices"
	"testing"
)

func TestWithoutImports(t *testing.T) {
	text := `package main

import (
	"fmt"
	_ "example.org/a"
	_ "example.org/ab" // stays
)
`
	got, removed, err := withoutImports([]byte(text), []string{"example.org/a", "example.org/c"})
	if err != nil {
		t.Fatal(err)
	}
	want := `package main

import (
	"fmt"
	                 
	_ "example.org/ab" // stays
)
`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !slices.Equal(removed, []string{"example.org/a"}) {
		t.Errorf("removed %v", removed)
	}
}
