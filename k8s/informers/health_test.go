package informers

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A server that has just started refuses all for a moment, which is not what somebody has to mend. What it refuses for longer is, once.
func TestRefusalThatLasts(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no role"))
	type step struct {
		after time.Duration
		err   error
	}
	for _, row := range []struct {
		name          string
		steps         []step
		told, answers int
	}{
		{"a moment", []step{{0, forbidden}, {RefusalLasts - 1, forbidden}, {1, nil}}, 0, 0},
		{"moments", []step{{0, forbidden}, {1, nil}, {RefusalLasts, forbidden}, {1, nil}}, 0, 0},
		{"away between", []step{{0, forbidden}, {1, errors.New("connection refused")}, {RefusalLasts, forbidden}, {1, nil}}, 0, 1},
		{"for long", []step{{0, forbidden}, {RefusalLasts, forbidden}, {RefusalLasts, forbidden}, {1, nil}}, 1, 1},
		{"again", []step{{0, forbidden}, {RefusalLasts, forbidden}, {1, nil}, {1, forbidden}, {RefusalLasts, forbidden}}, 2, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, warned := &logged{}, 0
				h := newHealth(slog.New(slog.NewTextHandler(log, nil)), "https://192.168.254.11:6443")
				h.warn = func(string, string) { warned++ }
				for _, s := range row.steps {
					time.Sleep(s.after)
					h.note("pods", s.err)
					if (h.unreachable() != nil) != (s.err != nil) {
						t.Errorf("after %v the status says %v", s.err, h.unreachable())
					}
				}
				if got := log.count("refuses what this node needs"); got != row.told || warned < row.told || row.told == 0 && warned > 0 {
					t.Errorf("told %d times, with %d warnings; want %d times:\n%s", got, warned, row.told, log.text.String())
				}
				if got := log.count("answers again"); got != row.answers {
					t.Errorf("said %d times that the server answers again, want %d:\n%s", got, row.answers, log.text.String())
				}
			})
		})
	}
}
