package cluster

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestOutput: what a command prints is bounded, and what it says is part of its error.
func TestOutput(t *testing.T) {
	failed := errors.New("exit code 1")
	for _, tt := range []struct {
		name, prints, says string
		err                error
		want, wantErr      string
	}{
		{"all", "12345678", "by the way", nil, "12345678", ""},
		{"too much", "123456789", "", nil, "", "more than 8 bytes"},
		{"a failure", "1", " no such file\n", failed, "1", "exit code 1: no such file"},
		{"a failure without words", "", "\n", failed, "", "exit code 1"},
		{"too many words", "", strings.Repeat("x", maxWords+1), nil, "", "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := API{Run: func(_ context.Context, _ Container, _ []string, in io.Reader, out, errs io.Writer) error {
				if b, err := io.ReadAll(in); len(b) > 0 || err != nil {
					t.Errorf("input: %q, %v", b, err)
				}
				_, first := io.WriteString(out, tt.prints)
				_, second := io.WriteString(errs, tt.says)
				return errors.Join(first, second, tt.err)
			}}
			got, err := a.Output(t.Context(), Container{}, nil, 8)
			if string(got) != tt.want || (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got %q, %v, want %q, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
}
