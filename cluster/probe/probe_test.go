package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/tool"
)

// server answers as the pods of `middleway check` do, and returns its ports.
func server(t *testing.T) (http, tcp, udp string) {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	web, stream := listen(), listen()
	c, err := tool.ListenDatagrams("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []interface{ Close() error }{tool.Serve(web), tool.EchoStreams(stream), tool.EchoDatagrams(c)} {
		t.Cleanup(func() { _ = s.Close() })
	}
	return web.Addr().String(), stream.Addr().String(), c.LocalAddr().String()
}

func TestServe(t *testing.T) {
	http, tcp, udp := server(t)
	closed := "127.0.0.1:1"
	plan := Plan{Timeout: 3 * time.Second, Questions: []Question{
		{ID: 0, Kind: HTTP, To: http, Times: 3},
		{ID: 1, Kind: TCP, To: tcp},
		{ID: 2, Kind: UDP, To: udp},
		{ID: 3, Kind: Bulk, To: tcp},
		{ID: 4, Kind: Path, To: udp},
		{ID: 5, Kind: HTTPS, To: "http://" + http + "/nowhere"},
		{ID: 6, Kind: TCP, To: closed},
		{ID: 7, Kind: HTTP, To: closed},
		{ID: 8, Kind: "smoke", To: http},
		{ID: 9, Kind: UDP, To: closed},
	}}
	in, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), bytes.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	answers := map[int]Answer{}
	for d := json.NewDecoder(&out); d.More(); {
		var a Answer
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers[a.ID] = a
	}
	for id := range 6 {
		if a := answers[id]; a.Error != "" || a.Tries != 1 || a.Took <= 0 {
			t.Errorf("%s: got %+v, want an answer", plan.Questions[id].Kind, a)
		}
	}
	for id, want := range map[int]string{6: "connection refused", 7: "connection refused", 8: "older than the one who asks", 9: "connection refused"} {
		if a := answers[id]; !strings.Contains(a.Error, want) || a.Tries != tries {
			t.Errorf("question %d: got %+v, want %q", id, a, want)
		}
	}
	if a := answers[0]; len(a.Hosts) != 1 || !a.Seen.Addr().IsLoopback() || a.Reached.String() != http {
		t.Errorf("HTTP: got %+v", a)
	}
	if a := answers[4]; a.MTU != a.Whole || a.MTU < 1280 {
		t.Errorf("path: got %d of %d bytes, want the loopback's MTU", a.MTU, a.Whole)
	}
	if a := answers[5]; a.Status != 404 {
		t.Errorf("HTTPS: got status %d, want 404, which is an answer", a.Status)
	}
}

func TestServeNonsense(t *testing.T) {
	if err := Serve(t.Context(), strings.NewReader("nonsense"), &bytes.Buffer{}); err == nil {
		t.Error("no error")
	}
}

func TestCandidates(t *testing.T) {
	conf := tool.ParseResolvConf("search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n")
	for _, tt := range []struct {
		conf tool.ResolvConf
		q    Question
		want string
	}{
		{conf, Question{To: "web.shop.svc.$DOMAIN.", Type: "A"}, "[web.shop.svc.cluster.local.]"},
		{conf, Question{To: "10.96.0.1", Type: "PTR"}, "[1.0.96.10.in-addr.arpa.]"},
		{conf, Question{To: "web", Type: "A"}, "[web.shop.svc.cluster.local. web.svc.cluster.local. web.cluster.local. web.]"},
		{tool.ResolvConf{}, Question{To: "web.$DOMAIN.", Type: "A"}, "/etc/resolv.conf has no search domain like svc.cluster.local: []"},
	} {
		names, err := candidates(tt.conf, tt.q)
		got := fmt.Sprint(names)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.q, got, tt.want)
		}
	}
}
