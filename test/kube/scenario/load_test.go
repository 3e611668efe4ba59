package scenario

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLoadCountsEveryRequest(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1); n%5 == 0 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		} else {
			fmt.Fprint(w, "pod-", n%2)
		}
	}))
	defer server.Close()
	r := Load{URL: server.URL, Workers: 1, Requests: 10, Bodies: true}.Run(t.Context())
	if r.Requests != 10 || len(r.Failures) != 2 || r.Longest < r.P50 {
		t.Errorf("got %+v", r)
	}
	if diff := cmp.Diff(map[string]int{"pod-0": 4, "pod-1": 4, "status 503 Service Unavailable": 2}, r.Bodies); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoadEndsWhenItIsTold(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close() // so that every request is refused
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Result)
	go func() { done <- Load{URL: server.URL, Workers: 3, Every: time.Hour}.Run(ctx) }()
	cancel()
	if r := <-done; r.Requests != len(r.Failures) {
		t.Errorf("%d of %d refused requests are failures", len(r.Failures), r.Requests)
	}
}

func TestLoadCountsLostConnections(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, "here")
	}))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateIdle && asked.Load() == 3 {
			c.Close()
		}
	}
	server.Start()
	defer server.Close()
	for _, row := range []struct {
		keep         bool
		before, lost int
	}{{true, 0, 1}, {true, 3, 0}, {false, 3, 0}} {
		asked.Store(int32(row.before))
		r := Load{URL: server.URL, Requests: 6, KeepAlive: row.keep, Every: 10 * time.Millisecond}.Run(t.Context())
		if r.Lost != row.lost || r.Requests != 6 {
			t.Errorf("%+v: got %+v", row, r)
		}
	}
}

func TestLoadHashesWhatComesSlowly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "abc") }))
	defer server.Close()
	r := Load{URL: server.URL, Requests: 1, Hash: true, Rate: 30}.Run(t.Context())
	// FIPS 180-2, appendix B.1
	if want := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; r.Bodies[want] != 1 {
		t.Errorf("got %v, want %s", r.Bodies, want)
	}
	if r.Longest < 90*time.Millisecond {
		t.Errorf("3 bytes at 30 a second took %v", r.Longest)
	}
}
