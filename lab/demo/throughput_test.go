package demo

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A kernel without a device is told, and no failure; any other refusal is one.
func TestMissing(t *testing.T) {
	refused := fmt.Errorf("make vxlan device flannel.1: %w", unix.EOPNOTSUPP)
	err := missing(refused, "vxlan")
	if want := "nothing to compare with: this kernel has no vxlan"; !errors.Is(err, errMissing) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := missing(unix.EPERM, "vxlan"); errors.Is(err, errMissing) || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want %v", err, unix.EPERM)
	}
	f := rateFact{Middleway: 8.04, Missing: err.Error()}
	if got, want := f.text(), "middleway 8.0 Gbit/s; nothing to compare with: this kernel has no vxlan"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
