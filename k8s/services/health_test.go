package services

import (
	"fmt"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/k8s/object"
)

// TestHealthChecks has the cases of kube-proxy's tests of LocalReadyEndpoints (pkg/proxy/endpointschangetracker_test.go) and of KEP-1669.
func TestHealthChecks(t *testing.T) {
	web := func(ips string, ports ...string) *object.Service {
		s := serviceOf(ips, ports...)
		s.ExternalLocal, s.HealthPort = true, 32000
		return s
	}
	http := web("10.96.0.20", "http:80")
	without := serviceOf("10.96.0.20", "http:80")
	without.ExternalLocal = true
	tests := []struct {
		name      string
		service   *object.Service
		endpoints string
		ports     string // of all slices, "http:8080" by default
		want      string // "where: how many"
	}{
		{"one here", http, "2@n1 ready, 3@n2 ready", "", "0.0.0.0:32000: 1"},
		{"two here", http, "2@n1 ready, 3@n1 ready", "", "0.0.0.0:32000: 2"},
		{"none here", http, "3@n2 ready, 4@ ready", "", "0.0.0.0:32000: 0"},
		{"none anywhere", http, "", "", "0.0.0.0:32000: 0"},
		{"not ready", http, "2@n1 unready", "", "0.0.0.0:32000: 0"},
		{"it ends, and serves", http, "2@n1 ending", "", "0.0.0.0:32000: 0"},
		{"published though not ready", http, "2@n1 published, 3@n1 published-ending", "", "0.0.0.0:32000: 2"},
		{"hinted for others", http, "2@n1 ready zone=b, 3@n2 ready zone=a", "", "0.0.0.0:32000: 1"},
		{"in two slices", http, "2@n1 ready|2@n1 ready, 3@n1 ready", "", "0.0.0.0:32000: 2"},
		{"at two ports", web("10.96.0.20", "http:80", "metrics:9100"), "2@n1 ready, 3@n1 ready", "http:8080 metrics:9100", "0.0.0.0:32000: 2"},
		{"at another port", http, "2@n1 ready", "metrics:9100", "0.0.0.0:32000: 0"},
		{"each family for itself", web("10.96.0.20 fd00:10:96::20", "http:80"), "2@n1 ready, fd00:10:244:1::2@n1 ready, fd00:10:244:1::3@n1 ready", "",
			"0.0.0.0:32000: 1, [::]:32000: 2"},
		{"another proxy's", notProxied(web("10.96.0.20", "http:80")), "2@n1 ready", "", ""},
		{"without a port for it", without, "2@n1 ready", "", ""},
		{"no address yet", web("", "http:80"), "2@n1 ready", "", ""},
		{"no Service", nil, "2@n1 ready", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slices := slicesOf(tt.endpoints)
			for _, s := range slices {
				if tt.ports != "" {
					withPorts(s, strings.Fields(tt.ports)...)
				}
			}
			var got []string
			for _, c := range HealthChecks(tt.service, slices, here) {
				if c.Service != tt.service.Key {
					t.Errorf("it is about %v, want %v", c.Service, tt.service.Key)
				}
				got = append(got, fmt.Sprintf("%v: %d", c.At, c.Local))
			}
			if got := strings.Join(got, ", "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
