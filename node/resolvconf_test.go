package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
