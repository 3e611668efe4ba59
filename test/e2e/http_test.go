package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/packet"
)

// getFrom asks a daemon's HTTP server from inside its node.
func getFrom(t *testing.T, n *lab.Node, path string) (int, []byte) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, network, addr string) (net.Conn, error) { return n.Dial(ctx, network, addr) },
	}}
	resp, err := client.Get("http://" + node.DefaultHTTP + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// metric returns the value of one sample in a scrape; 0 if it is not there.
func metric(t *testing.T, scrape []byte, sample string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(sample) + ` (\S+)$`).FindSubmatch(scrape)
	if m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func hasSample(scrape []byte, sample string) bool {
	return bytes.Contains(scrape, []byte("\n"+sample+" "))
}

// TestHealthOfPeers: metrics tell the peer that answers from the one that does not, and say nothing of a kernel's device.
func TestHealthOfPeers(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Change: func(number int, c *node.Config) {
		if number > 1 {
			return
		}
		c.Offloads.USO = node.Off
		for _, n := range []int{7, 8} {
			c.Peers = append(c.Peers, node.Peer{Address: lab.NodeAddr4(n).Addr(), PodCIDRs: []netip.Prefix{lab.PodCIDR4(n)}, Kernel: n == 8})
		}
	}})
	n := cl.Nodes[0]
	var scrape []byte
	eventually(t, "node-2 answers", func() bool {
		_, scrape = getFrom(t, n, "/metrics")
		return metric(t, scrape, `middleway_peer_up{peer="node-2"}`) == 1
	})
	if problems, err := promlint.New(bytes.NewReader(scrape)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("names of metrics: %v %v", problems, err)
	}
	if rtt := metric(t, scrape, `middleway_peer_rtt_seconds{peer="node-2"}`); rtt <= 0 || rtt > 10 {
		t.Errorf("round trip of %v s", rtt)
	}
	for sample, want := range map[string]bool{
		`middleway_peer_up{peer="192.168.254.17"}`:              true,
		`middleway_peer_up{peer="192.168.254.18"}`:              false,
		`middleway_peer_rtt_seconds{peer="192.168.254.17"}`:     false,
		`middleway_offload_info{offload="uso",state="off"}`:     true,
		`middleway_offload_info{offload="uso",state="on"}`:      false,
		`middleway_offload_info{offload="checksum",state="on"}`: true,
	} {
		if got := hasSample(scrape, sample); got != want {
			t.Errorf("%s: there is one: %v, want %v", sample, got, want)
		}
	}
	mtu := float64(mustStatus(t, n).MTU)
	for sample, want := range map[string]float64{
		`middleway_peer_up{peer="192.168.254.17"}`: 0, `middleway_peer_mtu_bytes{peer="192.168.254.17"}`: mtu,
		`middleway_peer_mtu_bytes{peer="192.168.254.18"}`: mtu, `middleway_peer_mtu_bytes{peer="node-2"}`: mtu, "middleway_peers": 3,
	} {
		if got := metric(t, scrape, sample); got != want {
			t.Errorf("%s: got %v, want %v", sample, got, want)
		}
	}
}

func TestHealthAndMetrics(t *testing.T) {
	n := newCluster(t, lab.ClusterConfig{Pods: []int{2}}).Nodes[0]
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := getFrom(t, n, path); code != http.StatusOK || string(body) != "ok\n" {
			t.Errorf("GET %s: got %d %q, want 200 ok", path, code, body)
		}
	}
	_, before := getFrom(t, n, "/metrics")
	if problems, err := promlint.New(bytes.NewReader(before)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("names of metrics: %v %v", problems, err)
	}
	for _, reason := range packet.DropNames() {
		if sample := fmt.Sprintf("middleway_dropped_packets_total{reason=%q}", reason); !hasSample(before, sample) {
			t.Errorf("%s is not there before the first drop", sample)
		}
	}
	const pings = 10
	for range pings {
		mustPing(t, n.Pods[0].Namespace, n.Pods[1].Addr4, 56)
	}
	nowhere := netip.MustParseAddrPort("203.0.113.9:9")
	c, err := n.Pods[0].Dial(t.Context(), "udp", nowhere.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var after []byte
	eventually(t, "the packet to nowhere is counted", func() bool {
		_, after = getFrom(t, n, "/metrics")
		return metric(t, after, `middleway_dropped_packets_total{reason="no-route"}`) == 1 && metric(t, after, "middleway_icmp_errors_total") == 1 &&
			metric(t, after, "middleway_forwarded_packets_total") >= metric(t, before, "middleway_forwarded_packets_total")+2*pings+1
	})
	if got := metric(t, after, "middleway_forwarded_packets_total") - metric(t, before, "middleway_forwarded_packets_total"); got != 2*pings+1 {
		t.Errorf("forwarded %v packets, want %d: the pings, their replies and the error about the packet to nowhere", got, 2*pings+1)
	}
	if metric(t, after, "middleway_flow_directions") == 0 {
		t.Error("no flows are known")
	}
	for sample, want := range map[string]float64{
		"middleway_attachments": 2, "middleway_pod_mtu_bytes": float64(mustStatus(t, n).MTU),
	} {
		if got := metric(t, after, sample); got != want {
			t.Errorf("%s: got %v, want %v", sample, got, want)
		}
	}
}

func TestStartHTTPPortInUse(t *testing.T) {
	m := newMachine(t)
	l, err := m.node.Listen("tcp4", node.DefaultHTTP)
	m.must(err)
	t.Cleanup(func() { l.Close() })
	before := len(m.left())
	if text := m.mustFail(node.DefaultHTTP, "another program has this port", "http: none"); strings.Contains(text, "in use") {
		t.Errorf("says it twice: %s", text)
	}
	if left := m.left(); len(left) > before {
		t.Errorf("left behind: %v", left)
	}
}
