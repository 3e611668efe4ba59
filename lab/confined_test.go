package lab

import "testing"

func TestConfined(t *testing.T) {
	for _, tt := range []struct {
		label     string
		enforcing bool
		want      string
	}{
		{"", false, ""},
		{"unconfined\n", false, ""},
		{"unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\x00", true, ""},
		{"kernel\x00", true, ""},
		{"docker-default (enforce)\n", false, "the AppArmor profile docker-default (enforce)"},
		{"system_u:system_r:container_t:s0:c1,c2\x00", true, "SELinux, as system_u:system_r:container_t:s0:c1,c2"},
		{"system_u:system_r:container_t:s0:c1,c2\x00", false, ""},
	} {
		if got := confinedBy(tt.label, tt.enforcing); got != tt.want {
			t.Errorf("%q, %v: got %q, want %q", tt.label, tt.enforcing, got, tt.want)
		}
	}
	for status, want := range map[string]bool{
		"Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n": false,
		"Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t3\n": true,
		"Name:\tx\n": false,
	} {
		if got := filtered(status); got != want {
			t.Errorf("%q: got %v", status, got)
		}
	}
}
