package playground

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReport(t *testing.T) {
	for _, tt := range []struct{ name, text, out, reason string }{
		{"fails", "2 nodes\nmiddleway: no space\n", "2 nodes\n", "no space"},
		{"several lines", "middleway: no space\nno time\n", "", "no space\nno time"},
		{"unfinished line", "2 nodes\nkilled", "2 nodes\n", "killed"},
		{"nothing", "", "", "the cluster ended without a word"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			r := &report{out: &out}
			if _, err := io.Copy(r, iotest.OneByteReader(strings.NewReader(tt.text))); err != nil {
				t.Fatal(err)
			}
			if err := r.failure(); out.String() != tt.out || err.Error() != tt.reason {
				t.Errorf("got %q, %q, want %q, %q", out.String(), err, tt.out, tt.reason)
			}
		})
	}
}
