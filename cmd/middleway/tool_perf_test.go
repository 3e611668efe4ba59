package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/lab/perf"
)

// perfServer starts a server and returns where it listens.
func perfServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- (&perf.Server{}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func runPerf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(append([]string{"tool", "perf"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPerf(t *testing.T) {
	server := perfServer(t)
	for flags, want := range map[string]string{
		"":                                 "Gbit/s",
		"--interval 50ms":                  "0.1 s  ",
		"--udp --size 64":                  "% lost",
		"--latency":                        "unanswered",
		"--latency --udp":                  "p99",
		"--connections --streams 2":        "connections/s",
		"--congestion reno":                "Gbit/s",
		"--udp --segments 4 --interval 1s": "packets/s",
	} {
		out, err := runPerf(t, append(strings.Fields(flags), "--time", "500ms", server)...)
		if err != nil || !strings.Contains(out, want) || !strings.Contains(out, "processor time: client") {
			t.Errorf("%q: got %q, %v, want %q", flags, out, err, want)
		}
	}
	out, err := runPerf(t, "--time", "500ms", "-o", "json", "--connections", server)
	var report map[string]any
	if jsonErr := json.Unmarshal([]byte(out), &report); err != nil || jsonErr != nil {
		t.Fatalf("got %q, %v, %v", out, err, jsonErr)
	}
	if report["kind"] != "connections" || report["requestsPerSecond"] == nil || report["p99Ms"] == nil || report["bitsPerSecond"] != nil {
		t.Errorf("got %v", report)
	}
}

func TestPerfFails(t *testing.T) {
	for args, want := range map[string]string{
		"":                                "want one HOST[:PORT]",
		"a b":                             "want one HOST[:PORT]",
		"--serve a":                       "to connect to",
		"--serve --listen nowhere":        "nowhere",
		"-o xml a":                        "text or json",
		"--connections --udp 127.0.0.1":   "without --udp",
		"--udp --size 4 127.0.0.1":        "8 to 65000",
		"127.0.0.1:70000":                 "1 to 65535",
		"127.0.0.1:1:1":                   "no HOST[:PORT]",
		"--time 1s 127.0.0.1:1":           "refused",
		"--congestion none-such SERVER":   "tcp_available_congestion_control",
		"--time never 127.0.0.1":          "want a time like",
		"--time -1 127.0.0.1":             "want a time like",
		"--streams 100 [fd00:10:1::1]:80": "1 to 64",
	} {
		args = strings.ReplaceAll(args, "SERVER", perfServer(t))
		out, err := runPerf(t, strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v, want an error with %q", args, out, err, want)
			continue
		}
		// Only a server that was asked says no.
		asked := strings.Contains(want, "refused") || strings.Contains(want, "congestion")
		if exit := new(exitError); errors.As(err, &exit) == asked {
			t.Errorf("%q: got %v, exit code 2: %v, want %v", args, err, !asked, asked)
		}
	}
}
