package perf

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMessages(t *testing.T) {
	why := "because"
	for _, m := range []message{
		{Open: &Test{Kind: UDP, Size: 64, Streams: 2, Time: time.Second}},
		{Accepted: &accepted{Ports: []uint16{1, 65535}, Token: strings.Repeat("0f", tokenSize)}},
		{Ready: &struct{}{}}, {Start: &struct{}{}}, {Done: &struct{}{}},
		{Sample: &sample{At: 1, Bytes: 2, Packets: 3, Sent: 4, CPU: 5, Last: true}},
		{Error: &why},
	} {
		line, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseMessage(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if diff := cmp.Diff(&m, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", line, diff)
		}
	}
}

// wrongMessages break one rule each.
var wrongMessages = []string{
	``, `{}`, `[]`, `null`, `"open"`, `{"open":null}`,
	`{"ready":{},"start":{}}`,                               // two things
	`{"ready":{},"ready":{}}`,                               // one of them twice
	`{"Ready":{}}`,                                          // another spelling
	`{"ready":{}} {}`,                                       // something behind
	`{"later":{}}`, `{"ready":{"now":true}}`, `{"ready":{}`, // unknown, unknown, cut off
	`{"open":{"kind":"sctp"}}`, `{"open":{"size":-1}}`, // what Test.Check refuses
	`{"open":{"timeNs":1e30}}`, `{"open":{"streams":1000}}`, // too great
	`{"open":{"congestion":"a b"}}`,          // no name
	`{"accepted":{"ports":[],"token":"00"}}`, // short
	`{"accepted":{"ports":[0],"token":"` + strings.Repeat("0f", tokenSize) + `"}}`,
	`{"accepted":{"ports":[70000],"token":"` + strings.Repeat("0f", tokenSize) + `"}}`,
	`{"accepted":{"ports":[],"token":"` + strings.Repeat("0f", tokenSize) + `"}}`,
	`{"sample":{"bytes":-1}}`,
}

func TestWrongMessages(t *testing.T) {
	for _, line := range wrongMessages {
		if m, err := parseMessage([]byte(line)); err == nil {
			t.Errorf("%s: got %+v, want an error", line, m)
		}
	}
}

// What is parsed is written as it was meant, and no test is carried out that Check refuses.
func FuzzMessage(f *testing.F) {
	for _, line := range wrongMessages {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"open":{"kind":"udp","size":64,"streams":2,"segments":1,"congestion":"","warmUpNs":0,"timeNs":0,"intervalNs":0}}`))
	f.Add([]byte(`{"sample":{"atNs":1,"bytes":2,"packets":3,"sent":4,"cpuNs":5,"last":true}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err != nil {
			return
		}
		if m.Open != nil {
			if err := m.Open.withDefaults().Check(); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		written, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseMessage(written)
		if err != nil {
			t.Fatalf("%s, written as %s: %v", line, written, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("%s: -first +again:\n%s", line, diff)
		}
	})
}

func TestReceive(t *testing.T) {
	for sent, want := range map[string]string{
		`{"error":"busy"}` + "\n":            "the server says: busy",
		strings.Repeat("x", 2*maxMessage):    "longer than 4096 bytes",
		`{"ready":{}`:                        "unexpected EOF",
		"":                                   "EOF",
		"SSH-2.0-OpenSSH_10.0\r\nmore\r\n\n": "message:",
	} {
		here, there := net.Pipe()
		go func() {
			_, _ = there.Write([]byte(sent))
			_ = there.Close()
		}()
		if m, err := newControl(here).receive(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: got %+v, %v, want an error with %q", sent, m, err, want)
		}
		_ = here.Close()
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		test Test
		want string // "" for a good one
	}{
		{"defaults", Test{}, ""},
		{"greatest", Test{Size: maxStreamSize, Streams: MaxStreams, Time: MaxTime, WarmUp: maxWarmUp, Interval: minInterval, Congestion: "bbr"}, ""},
		{"trains", Test{Kind: UDP, Segments: 46}, ""},
		{"kind", Test{Kind: "icmp"}, "tcp-latency"},
		{"no room for the number", Test{Kind: UDP, Size: 7}, "8 to 65000"},
		{"more than a request", Test{Kind: TCPLatency, Size: maxRequestSize + 1}, "1 to 1024"},
		{"streams", Test{Streams: -1}, "1 to 64"},
		{"train too long", Test{Kind: UDP, Segments: 47}, "65000 bytes in all"},
		{"segments of TCP", Test{Segments: 2}, "of UDP"},
		{"congestion", Test{Congestion: "Cubic\n"}, "like cubic"},
		{"warm-up", Test{WarmUp: -1}, "warm-up"},
		{"time", Test{Time: 1}, "10ms to 1h"},
		{"interval", Test{Interval: time.Millisecond}, "interval"},
	} {
		err := tt.test.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
