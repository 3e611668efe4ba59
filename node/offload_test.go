package node

import (
	"errors"
	"testing"
)

func TestOffloadStates(t *testing.T) {
	for _, tt := range []struct {
		off     Switch
		missing error
		want    Offload
	}{
		{"", nil, Offload{State: "on"}},
		{Auto, nil, Offload{State: "on"}},
		{Off, nil, Offload{"off", "by configuration"}},
		{Off, errors.New("protocol not available"), Offload{"off", "by configuration"}},
		{Auto, errors.New("protocol not available"), Offload{"missing", "the kernel refuses it: protocol not available"}},
	} {
		if got := offload(tt.off, reason(tt.missing)); got != tt.want {
			t.Errorf("%q, %v: got %+v, want %+v", tt.off, tt.missing, got, tt.want)
		}
	}
	portable, err := deviceOffloads(Offloads{}, true)
	if err != nil || len(portable) != 3 {
		t.Errorf("portable: got %v, %v", portable, err)
	}
	for name, o := range portable {
		if o.State != "off" || o.Why == "" {
			t.Errorf("%s of a portable device: %+v", name, o)
		}
	}
}
