package kubectl

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/middleway-net/middleway/lab/control"
)

// column is one of a kind's table.
type column struct {
	name string
	wide bool // only with -o wide
}

// clock is when a table is looked at.
type clock time.Time

// age is how long ago a time was, as kubectl writes it.
func (c clock) age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Time(c).Sub(t.Time))
}

// orNone stands for what there is none of.
func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// columns says which columns a table has besides those of its kind.
type columns struct {
	wide      bool     // those of -o wide
	namespace bool     // in front, for objects that have one
	kind      bool     // names with their kind: pod/web
	labels    bool     // a last one with all labels
	label     []string // one for each of these labels
	event     bool     // in front: what has happened to an object that is watched
	noHeaders bool
}

// table prints objects of one kind. Those that come later keep the widths of those before.
type table struct {
	w       io.Writer
	form    form
	columns columns
	begun   bool
	grid    grid
}

// print prints rows, after the header if they are the first.
func (t *table) print(now time.Time, events []control.Event) error {
	if len(events) == 0 {
		return nil
	}
	if !t.begun && !t.columns.noHeaders {
		t.grid.rows = append(t.grid.rows, t.header())
	}
	t.begun = true
	for _, e := range events {
		t.grid.rows = append(t.grid.rows, t.row(e, clock(now)))
	}
	return t.grid.flush(t.w)
}

func (t *table) header() []string {
	var names []string
	if t.columns.event {
		names = append(names, "EVENT")
	}
	if t.namespaced() {
		names = append(names, "NAMESPACE")
	}
	for _, c := range t.form.columns {
		if !c.wide || t.columns.wide {
			names = append(names, c.name)
		}
	}
	for _, key := range t.columns.label {
		names = append(names, strings.ToUpper(key[strings.LastIndex(key, "/")+1:]))
	}
	if t.columns.labels {
		names = append(names, "LABELS")
	}
	return names
}

func (t *table) namespaced() bool { return t.columns.namespace && t.form.kind.Namespaced }

func (t *table) row(e control.Event, at clock) []string {
	var row []string
	if t.columns.event {
		row = append(row, string(e.Type))
	}
	if t.namespaced() {
		row = append(row, e.Object.GetNamespace())
	}
	for i, cell := range t.form.cells(e.Object, at) {
		if i == 0 && t.columns.kind {
			cell = ref(t.form.kind.Kind, t.form.kind.Group, cell)
		}
		if !t.form.columns[i].wide || t.columns.wide {
			row = append(row, cell)
		}
	}
	for _, key := range t.columns.label {
		row = append(row, e.Object.GetLabels()[key])
	}
	if t.columns.labels {
		row = append(row, labels.FormatLabels(e.Object.GetLabels()))
	}
	return row
}

// grid lays out rows in columns as wide as what they hold. Rows that come later are laid out as those before, or wider.
type grid struct {
	rows   [][]string
	widths []int
}

// Widths of kubectl's tables, in characters.
const (
	minColumn = 6
	padding   = 3
)

// flush prints the rows. All have as many cells.
func (g *grid) flush(w io.Writer) error {
	for _, row := range g.rows {
		for i, cell := range row {
			if i == len(g.widths) {
				g.widths = append(g.widths, minColumn)
			}
			g.widths[i] = max(g.widths[i], utf8.RuneCountInString(cell)+padding)
		}
	}
	var b strings.Builder
	for _, row := range g.rows {
		last := len(row) - 1
		for i, cell := range row[:last] {
			fmt.Fprintf(&b, "%-*s", g.widths[i], cell)
		}
		b.WriteString(row[last] + "\n")
	}
	g.rows = nil
	_, err := io.WriteString(w, b.String())
	return err
}
