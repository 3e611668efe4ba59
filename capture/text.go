package capture

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Text writes a line for each packet.
type Text struct{ w *bufio.Writer }

// NewText returns a sink that writes lines to w.
func NewText(w io.Writer) *Text { return &Text{bufio.NewWriter(w)} }

// Start does nothing: lines name their interfaces.
func (t *Text) Start(*Start) error { return nil }

// Names does nothing: lines have addresses.
func (t *Text) Names([]Name) error { return nil }

// Record writes a line: time of day, interface, direction, flow, TCP flags, length, and the comment without the flow.
func (t *Text) Record(r *Record) error {
	what := cmp.Or(r.Flow, r.Message, "unreadable")
	if r.Flags != "" {
		what += " [" + r.Flags + "]"
	}
	short := *r
	short.Flow, short.Message = "", ""
	line := fmt.Sprintf("%s %s/%s %-3s %s, %d bytes: %s",
		r.Time.Local().Format("15:04:05.000000"), r.Node, r.Interface, r.Direction, what, r.Length, short.Comment())
	_, err := fmt.Fprintln(t.w, printable(line))
	return err
}

// Flush hands on the lines.
func (t *Text) Flush() error { return t.w.Flush() }

// End does nothing.
func (t *Text) End(string, map[string]uint64) error { return nil }

// printable keeps a name from doing something to a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
}

// JSON writes an object for each packet, a line each.
type JSON struct {
	w *bufio.Writer
	e *json.Encoder
}

// NewJSON returns a sink that writes JSON to w.
func NewJSON(w io.Writer) *JSON {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	return &JSON{b, e}
}

// Start does nothing: objects name their interfaces.
func (j *JSON) Start(*Start) error { return nil }

// Names does nothing: objects have addresses.
func (j *JSON) Names([]Name) error { return nil }

// Record writes an object: the record, and its comment.
func (j *JSON) Record(r *Record) error {
	return j.e.Encode(struct {
		*Record
		Comment string `json:"comment"`
	}{r, r.Comment()})
}

// Flush hands on the objects.
func (j *JSON) Flush() error { return j.w.Flush() }

// End does nothing.
func (j *JSON) End(string, map[string]uint64) error { return nil }
