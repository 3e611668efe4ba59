package demo

import (
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/middleway-net/middleway/lab/doctor"
)

// Report is what a run printed, as JSON.
type Report struct {
	Passed      bool           `json:"passed"`      // everything was checked, and nothing failed
	Interrupted bool           `json:"interrupted"` // some checks are missing
	Took        Millis         `json:"tookMs"`
	Machine     *doctor.Report `json:"machine"` // as `middleway doctor -o json` tells it
	Steps       []string       `json:"steps"`   // those that were gone through
	Checks      []Check        `json:"checks"`
}

// Check is one line of a run.
type Check struct {
	Step  string `json:"step"`
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"` // the cause, if not OK
	Took  Millis `json:"tookMs"`
	Facts fact   `json:"facts,omitempty"` // what was seen; absent if nothing was
}

// fact is what a check saw: a struct that is written as JSON.
type fact interface {
	// text returns the fact in words, one or a few lines.
	text() string
}

// Millis is a duration that is written in JSON as milliseconds.
type Millis time.Duration

// MarshalJSON writes milliseconds, to the microsecond.
func (m Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(m).Microseconds()) / 1000)
}

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*m = Millis(ms * float64(time.Millisecond))
	return nil
}

// String returns the duration like "0.12 ms", "12 ms" or "1.23 s".
func (m Millis) String() string { return short(time.Duration(m)) }

func (r *Report) failed() []Check {
	return slices.DeleteFunc(slices.Clone(r.Checks), func(c Check) bool { return c.OK })
}

func (r *Report) write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
