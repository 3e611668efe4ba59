package reference

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPageOfTheRepository(t *testing.T) {
	want, err := Page("../..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/configuration.md is not what the sources say (make manifest):\n%s", diff)
	}
}

func TestChartValues(t *testing.T) {
	got, err := chartValues([]byte(`# About all.

# What a is.
a: 1
# About b.
b:
  # What b.c is,
  # in two lines.
  c: ""
  # What b.d is.
  d: [x, {e: 1}]
# What f is.
f:
  g: {}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []row{
		{"a", "`1`", "What a is."},
		{"b.c", "`\"\"`", "About b. What b.c is, in two lines."},
		{"b.d", "`[x, {e: 1}]`", "What b.d is."},
		{"f", "`{g: {}}`", "What f is."},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := chartValues([]byte("a: 1\n")); err == nil || !strings.Contains(err.Error(), "a has no comment") {
		t.Errorf("a value without a comment: got %v", err)
	}
}

func TestInWords(t *testing.T) {
	names := map[string]string{"Services": "services", "RunDir": "runDir", "Address": "address", "MTU": "mtu"}
	for comment, want := range map[string]string{
		"Services configures the cluster's Services.": "`services` configures the cluster's Services.",
		"Default: a file in RunDir.\n":                "Default: a file in `runDir`.",
		"The node's own. Default Address.":            "The node's own. Default `address`.",
		"Found as Address says. Address it is.":       "Found as `address` says. Address it is.",
		"The MTU of a path.":                          "The MTU of a path.",
	} {
		if got := inWords(comment, "Services", names); got != want {
			t.Errorf("%q is %q, want %q", comment, got, want)
		}
	}
}
