package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/doctor"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
)

// The test binary is the CNI plugin too, and what the default pods run.
func TestMain(m *testing.M) {
	lab.RunRole()
	switch filepath.Base(os.Args[0]) {
	case cni.PluginName:
		os.Exit(cni.Main("test"))
	case "middleway":
		l, err := net.Listen("tcp", os.Args[len(os.Args)-1]) // middleway tool serve --listen :8080
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		tool.Serve(l)
		select {}
	}
	lab.Main(m)
}

// report is a Report as a reader of the JSON sees it.
type report struct {
	Passed, Interrupted bool
	TookMs              float64
	Machine             doctor.Report
	Steps               []string
	Checks              []struct {
		Step, Name, Error string
		OK                bool
		Facts             map[string]any
	}
}

// runJSON runs a small demo and reads its JSON.
func runJSON(ctx context.Context, t *testing.T, c Config) (report, error) {
	t.Helper()
	var b bytes.Buffer
	c.Download, c.Duration, c.JSON = 8<<20, 300*time.Millisecond, true
	runErr := Run(ctx, c, &b)
	var r report
	if err := json.Unmarshal(b.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, b.String())
	}
	return r, runErr
}

func (r *report) find(t *testing.T, step, name string) (ok bool, cause string, facts map[string]any) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Step == step && c.Name == name {
			return c.OK, c.Error, c.Facts
		}
	}
	t.Fatalf("no check %s, %s in %+v", step, name, r.Checks)
	return false, "", nil
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "demo.pcapng")
	r, err := runJSON(t.Context(), t, Config{Write: file})
	if err != nil || !r.Passed || r.Interrupted || r.TookMs <= 0 {
		t.Errorf("got %v, %+v", err, r)
	}
	want := []string{"machine", "cluster", "ping", "http", "service", "packet", "restart", "throughput", "end"}
	if !slices.Equal(r.Steps, want) {
		t.Errorf("steps: got %v, want %v", r.Steps, want)
	}
	if tun, ok := r.Machine.Finding("tun-open"); !ok || tun.State != doctor.Works {
		t.Errorf("machine: got %+v, want it to have TUN", tun)
	}
	_, _, packet := r.find(t, "packet", "GET, other node")
	if got := hex.EncodeToString(onlyPacket(t, file)); got != packet["frame"] {
		t.Errorf("the file has %s, the report %s", got, packet["frame"])
	}
	compareWithTshark(t, file)
	if packet["overhead"] != 50.0 || len(packet["layers"].([]any)) != 8 {
		t.Errorf("packet: got %v", packet)
	}
	_, _, service := r.find(t, "service", "by its name")
	if answers := service["answers"].(map[string]any); len(answers) != 4 || service["requests"] != 40.0 {
		t.Errorf("service: got %v", service)
	}
	_, _, trace := r.find(t, "service", "every decision")
	if trace["verdict"] != "forwarded" || !strings.HasPrefix(fmt.Sprint(trace["ends"]), "pod default/pod-") || len(trace["hops"].([]any)) != 2 {
		t.Errorf("trace: got %v", trace)
	}
	_, _, restart := r.find(t, "restart", "same node")
	if restart["oldPid"] == restart["newPid"] || restart["flows"].(float64) < 2 || restart["longestStallMs"].(float64) <= 0 {
		t.Errorf("restart: got %v", restart)
	}
}

func TestRunText(t *testing.T) {
	var b bytes.Buffer
	file := filepath.Join(t.TempDir(), "demo.pcapng")
	c := Config{Download: 4 << 20, Duration: 300 * time.Millisecond, Underlay: playground.Userspace, Write: file, Width: 100}
	if err := Run(t.Context(), c, &b); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"Linux ", "has        tun, ", "pod-2-2  10.244.2.3", "a switch in userspace", "no NAT", "pod network", "│ service    Service default/web:http: 10.244.", "└─→ pod default/pod-2-", "GET / HTTP/1.1", "hashes equal", "Gbit/s", "checks passed", "make bench",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if n := columns(line) - 1; n > c.Width && !strings.Contains(line, file) { // a path is not broken
			t.Errorf("%d columns: %s", n, line)
		}
	}
	compareWithReadme(t, b.String())
	if drawing := Draw(onlyPacket(t, file)); !strings.Contains(b.String(), drawing) {
		t.Errorf("the file's packet is not the one drawn, but\n%s in\n%s", drawing, b.String())
	}
}

// A node that does not know the other one: what needs it fails with the cause, the rest goes on.
func TestRunBroken(t *testing.T) {
	r, err := runJSON(t.Context(), t, Config{Change: func(number int, c *node.Config) {
		if number == 2 {
			c.Peers[0].Address = netip.MustParseAddr("192.168.254.99")
		}
	}})
	if !errors.Is(err, ErrFailed) || r.Passed {
		t.Errorf("got %v, passed %v, want %v", err, r.Passed, ErrFailed)
	}
	for _, step := range []string{"ping", "restart", "throughput"} {
		if ok, cause, _ := r.find(t, step, "other node"); ok || !strings.Contains(cause, "node-2 dropped") || !strings.Contains(cause, "unknown-peer") {
			t.Errorf("%s, other node: got %v, %q, want packets that node-2 dropped (unknown-peer)", step, ok, cause)
		}
		if ok, cause, _ := r.find(t, step, "same node"); !ok {
			t.Errorf("%s, same node: got %q, want ok", step, cause)
		}
	}
	if ok, cause, _ := r.find(t, "end", "take down"); !ok {
		t.Errorf("end: %s", cause)
	}
}

// A daemon that does not start ends the demo, with its own words.
func TestRunNoDaemon(t *testing.T) {
	r, err := runJSON(t.Context(), t, Config{Change: func(number int, c *node.Config) { c.VXLAN.MAC = "nonsense" }})
	if ok, cause, _ := r.find(t, "cluster", "2 nodes, 4 pods"); ok || !errors.Is(err, ErrFailed) || !strings.Contains(cause, "vxlan.mac") || len(r.Checks) != 1 {
		t.Errorf("got %v, %q, %d checks, want one that names vxlan.mac", err, cause, len(r.Checks))
	}
}

func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	r, err := runJSON(ctx, t, Config{})
	if !errors.Is(err, context.DeadlineExceeded) || r.Passed || !r.Interrupted {
		t.Errorf("got %v, %+v, want an interrupted run", err, r)
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s, %s: %s; what was interrupted has not failed", c.Step, c.Name, c.Error)
		}
	}
}
