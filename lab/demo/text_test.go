package demo

import (
	"encoding/json"
	"testing"
	"time"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00 ms", 123456 * time.Nanosecond: "0.12 ms", 42 * time.Millisecond: "42 ms", 1234 * time.Millisecond: "1.23 s",
		9999 * time.Microsecond: "10 ms", 999600 * time.Microsecond: "1.00 s",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for s, want := range map[string]Bytes{
		"1": 1, "1KiB": 1 << 10, "256MiB": 256 << 20, "2 GiB": 2 << 30, "": 0, "-1": 0, "0": 0, "1MB": 0, "x": 0, "9999999GiB": 0,
	} {
		var got Bytes
		if err := got.Set(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %v, %v, want %v", s, got, err, want)
		}
	}
	for b, want := range map[Bytes]string{
		0: "0 bytes", 1000: "1000 bytes", 1 << 10: "1 KiB", 256 << 20: "256 MiB", 90_000_000: "86 MiB", 1 << 30: "1 GiB", 1<<30 + 1<<20: "1025 MiB",
	} {
		if got := b.String(); got != want {
			t.Errorf("%d: got %q, want %q", int64(b), got, want)
		}
	}
}

func TestMillis(t *testing.T) {
	b, err := json.Marshal(Millis(1234567 * time.Nanosecond))
	if err != nil || string(b) != "1.234" {
		t.Errorf("got %s, %v, want 1.234", b, err)
	}
	var m Millis
	if err := json.Unmarshal(b, &m); err != nil || m != Millis(1234*time.Microsecond) {
		t.Errorf("got %v, %v", time.Duration(m), err)
	}
}

func TestDropped(t *testing.T) {
	before := map[string]uint64{"vni": 7, "scope": 1, "ttl": 9}
	after := map[string]uint64{"vni": 9, "scope": 5, "no-route": 3, "ttl": 2} // fewer ttl: a new daemon
	if got, want := dropped(before, after), "3 (no-route), 2 (ttl), 2 (vni)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
