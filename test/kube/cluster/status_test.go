package cluster

import "testing"

func TestUnready(t *testing.T) {
	for answer, want := range map[string]string{
		"connection refused": "connection refused",
		"get /readyz: 500: [+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/a failed: reason withheld\nreadyz check failed\n": "etcd failed, poststarthook/a failed",
	} {
		if got := unready(answer); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
