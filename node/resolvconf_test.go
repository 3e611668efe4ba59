package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestNameservers(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"ordinary", "# made by hand\nsearch example.com\nnameserver 192.168.254.1\nnameserver fd00:254::1\noptions ndots:2\n", []string{"192.168.254.1:53", "[fd00:254::1]:53"}},
		{"of an interface", "nameserver fe80::1%eth0\n", []string{"[fe80::1%eth0]:53"}},
		{"mapped and twice", "nameserver 192.168.254.1\nnameserver ::ffff:192.168.254.1", []string{"192.168.254.1:53"}},
		{"four", "nameserver 192.168.254.1\nnameserver 192.168.254.2\nnameserver 192.168.254.3\nnameserver 192.168.254.4\n", []string{"192.168.254.1:53", "192.168.254.2:53", "192.168.254.3:53"}},
		{"no servers", "nameserver\nnameserver 0.0.0.0\nnameserver example.com\n;nameserver 192.168.254.1\nxnameserver 192.168.254.1\n", nil},
		{"nothing", "", nil},
	} {
		var got []string
		for _, a := range nameservers(tt.text) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stub := write("stub", "nameserver 127.0.0.53\n")
	real := write("real", "nameserver 192.168.254.1\n")
	ours := write("ours", "nameserver 10.96.0.10\nnameserver 192.168.254.2\n")
	missing := filepath.Join(dir, "missing")
	for _, tt := range []struct {
		name  string
		paths []string
		want  string
	}{
		{"a stub of systemd-resolved", []string{stub, real}, "[192.168.254.1:53]"},
		{"a stub of somebody else", []string{stub, missing}, "[127.0.0.53:53]"},
		{"the first", []string{real, ours}, "[192.168.254.1:53]"},
		{"the cluster's own", []string{ours}, "[192.168.254.2:53]"},
		{"no file", []string{missing}, "[]"},
	} {
		r := resolvConf{tt.paths, []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
		if got := r.read(); fmt.Sprint(got) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestDNSAddresses(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"kubeadm's", `services: {cidrs: [10.96.0.0/16, "fd00:10:96::/112"]}`, "[10.96.0.10 fd00:10:96::a]"},
		{"given", "services: {cidrs: [10.96.0.0/16]}\ndns: {addresses: [10.96.0.2]}", "[10.96.0.2]"},
		{"off", "services: {cidrs: [10.96.0.0/16]}\ndns: {off: true}", "[]"},
		{"small range", "services: {cidrs: [10.96.0.0/29]}", "[]"},
		{"no range", "", "[]"},
	} {
		c, err := ParseConfig([]byte(inCluster + tt.yaml))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := fmt.Sprint(c.DNS.Addresses); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A changed resolv.conf is followed; one that is gone, or half written, changes nothing.
func TestFollowResolvConf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("nameserver 192.168.254.1\n")
		c, err := ParseConfig([]byte(inCluster + "services: {cidrs: [10.96.0.0/16]}\ndns: {resolvConf: " + path + "}"))
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{config: c, log: slog.New(slog.DiscardHandler)}
		if err := n.openDNS(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.followResolvConf(ctx) }()
		asks := func(want ...string) {
			t.Helper()
			time.Sleep(2 * resolvConfInterval)
			var got []string
			for _, u := range n.dnsStatus().Upstreams {
				got = append(got, u.Address.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		asks("192.168.254.1:53")
		write("nameserver 192.168.254.2\nnameserver 192.168.254.3\n")
		asks("192.168.254.2:53", "192.168.254.3:53")
		write("")
		asks("192.168.254.2:53", "192.168.254.3:53")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		asks("192.168.254.2:53", "192.168.254.3:53")
		write("nameserver 10.96.0.10\nnameserver 192.168.254.1\n")
		asks("192.168.254.1:53")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
