package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestLive(t *testing.T) {
	var out strings.Builder
	l := &live{out: &out, begin: time.Now(), said: time.Now()}
	text := `Will run 4 of 3206 specs
------------------------------
• [3.236 seconds]
[sig-network] Services should serve [Conformance]
  STEP: [sig-network] this is no test's end
------------------------------
• [FAILED] [12.345 seconds]
[sig-network] DNS should answer [It]
------------------------------
S [SKIPPED] [0.001 seconds]
[sig-network] Zones
`
	for i := 0; i < len(text); i += 7 { // lines come in parts
		if _, err := l.Write([]byte(text[i:min(i+7, len(text))])); err != nil {
			t.Fatal(err)
		}
	}
	if l.done != 2 || l.failed != 1 || l.total != 3 {
		t.Errorf("%d of %d done, %d failed, want 2 of 3, 1", l.done, l.total, l.failed)
	}
	if want := "FAIL  [sig-network] DNS should answer [It]\n"; out.String() != want {
		t.Errorf("it said %q, want %q", out.String(), want)
	}
}
