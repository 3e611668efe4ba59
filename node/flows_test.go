package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack"
)

// aFlow is one of a pod to an address, as it leaves to a backend if that is not "".
func aFlow(src, dst, backend, service, state string) stack.Flow {
	f := stack.Flow{Service: service, State: state, To: "node", Tuple: stack.Tuple{Protocol: "tcp", Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}}
	if backend != "" {
		f.LeavesAs = &stack.Tuple{Protocol: "tcp", Src: f.Src, Dst: netip.MustParseAddrPort(backend)}
	}
	return f
}

func TestFlowsRequest(t *testing.T) {
	prefixes := func(s ...string) (all []netip.Prefix) {
		for _, p := range s {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	f := aFlow("10.244.1.2:4000", "10.96.0.7:80", "10.244.2.2:8080", "default/web:http", "active")
	plain := aFlow("10.244.1.2:4000", "10.244.2.3:80", "", "", "active")
	for _, tt := range []struct {
		name        string
		req         FlowsRequest
		want, plain bool
	}{
		{"everything", FlowsRequest{}, true, true},
		{"the source", FlowsRequest{From: prefixes("10.244.9.0/24", "10.244.1.2/32")}, true, true},
		{"the destination is no source", FlowsRequest{From: prefixes("10.96.0.0/16")}, false, false},
		{"the address of the Service", FlowsRequest{To: prefixes("10.96.0.7/32")}, true, false},
		{"the backend", FlowsRequest{To: prefixes("10.244.2.2/32")}, true, false},
		{"without a Service", FlowsRequest{To: prefixes("10.244.2.3/32")}, false, true},
		{"a Service", FlowsRequest{Services: []string{"default/other", "default/web"}}, true, false},
		{"a port of it", FlowsRequest{Services: []string{"default/web:http"}}, true, false},
		{"another port of it", FlowsRequest{Services: []string{"default/web:dns"}}, false, false},
		{"the beginning of its name", FlowsRequest{Services: []string{"default/we"}}, false, false},
		{"all have to match", FlowsRequest{From: prefixes("10.244.1.2/32"), Services: []string{"default/other"}}, false, false},
	} {
		if got, gotPlain := tt.req.wants(&f), tt.req.wants(&plain); got != tt.want || gotPlain != tt.plain {
			t.Errorf("%s: got %v and %v, want %v and %v", tt.name, got, gotPlain, tt.want, tt.plain)
		}
	}
}

func TestFlowLister(t *testing.T) {
	a := aFlow("10.244.1.2:1", "10.96.0.7:80", "10.244.2.2:8080", "default/web:http", "opened")
	b := aFlow("10.244.1.2:2", "10.96.0.7:80", "10.244.2.3:8080", "default/web:http", "active")
	elsewhere := b
	elsewhere.LeavesAs = a.LeavesAs
	active := a
	active.State, active.Age = "active", 3*time.Second
	looks := [][]stack.Flow{{a, b}, {active, b}, {active, elsewhere}, {}, {b}}
	for _, tt := range []struct {
		follow bool
		want   []string
	}{
		{true, []string{
			"0  opened 1", "0  active 2", "1 changed active 1", "2 came active 2", "2 went active 2", "3 went active 1", "3 went active 2", "4 came active 2",
		}},
		{false, []string{"0  opened 1", "0  active 2"}},
	} {
		var out bytes.Buffer
		l := flowLister{name: "node-1", req: FlowsRequest{Follow: tt.follow}, encoder: json.NewEncoder(&out), known: map[flowKey]stack.Flow{}}
		var got []string
		for i, flows := range looks {
			if i > 0 && !tt.follow {
				break
			}
			l.look(slices.Values(flows))
			var at []string
			for d := json.NewDecoder(&out); d.More(); {
				var e FlowEvent
				if err := d.Decode(&e); err != nil {
					t.Fatal(err)
				}
				if e.Node != "node-1" || e.Service != "default/web:http" {
					t.Errorf("got %+v", e)
				}
				at = append(at, fmt.Sprintf("%d %s %s %d", i, e.Change, e.State, e.Src.Port()))
			}
			slices.SortFunc(at, func(a, b string) int { return strings.Compare(a[len(a)-1:]+a, b[len(b)-1:]+b) })
			got = append(got, at...)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("follow %v, want (-), got (+):\n%s", tt.follow, diff)
		}
	}
}
