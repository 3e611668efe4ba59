package node

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClusterStatusWords(t *testing.T) {
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	objects := map[string]int{"services": 3, "endpointslices": 4, "nodes": 2}
	for _, row := range []struct {
		name string
		st   ClusterStatus
		want string
	}{
		{"not known yet", ClusterStatus{Source: "https://192.168.254.11:6443"}, `from https://192.168.254.11:6443, which has not told all yet
0 Services, 0 EndpointSlices, 0 nodes; no change since`},
		{"by what was kept", ClusterStatus{Source: "https://192.168.254.11:6443", InForce: &at, Objects: objects, Unreachable: &Unreachable{at, "connection refused"}},
			`from https://192.168.254.11:6443, which has not answered since the start; what was last known is in force
the API server does not answer since 2026-11-23T08:00:00Z: connection refused
3 Services, 4 EndpointSlices, 2 nodes; no change since`},
		{"at work", ClusterStatus{
			Source: "/state", InForce: &at, Synced: true, Objects: objects, Changed: &at, Latency: Duration(1234567 * time.Nanosecond),
			LeftOut: map[string]string{"node-3": "it has no range", "node-2": "it has not come up"},
		}, `from /state, known since 2026-11-23T08:00:00Z
3 Services, 4 EndpointSlices, 2 nodes; last change 2026-11-23T08:00:00Z, in force after 1.23ms
node node-2 is left out: it has not come up
node node-3 is left out: it has no range`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(strings.Split(row.want, "\n"), row.st.Words()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
