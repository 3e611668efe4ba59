package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/node"
)

// TestNodeFlags: each flag takes the place of its field, and of that alone. Paths may be relative.
func TestNodeFlags(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arg  string
		want func(*node.Config)
	}{
		{"--name=node-2", func(c *node.Config) { c.Name = "node-2" }},
		{"--address=192.168.254.12", func(c *node.Config) { c.Address = netip.MustParseAddr("192.168.254.12") }},
		{"--pod-cidr=10.244.2.0/24", func(c *node.Config) { c.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")} }},
		{"--mtu=1400", func(c *node.Config) { c.MTU = 1400 }},
		{"--workers=3", func(c *node.Config) { c.Workers = 3 }},
		{"--run-dir=/run/other", func(c *node.Config) { c.RunDir = "/run/other" }},
		{"--run-dir=other", func(c *node.Config) { c.RunDir = filepath.Join(dir, "other") }},
		{"--run-dir=", func(*node.Config) {}},
		{"--cni-socket=/run/door.sock", func(c *node.Config) { c.CNI.Socket = "/run/door.sock" }},
		{"--sockets=/run/user/1000/mw", func(c *node.Config) { c.Sockets = "/run/user/1000/mw" }},
		{"--sockets=../mw", func(c *node.Config) { c.Sockets = filepath.Join(filepath.Dir(dir), "mw") }},
		{"--http=none", func(c *node.Config) { c.HTTP = "none" }},
	} {
		t.Run(tt.arg, func(t *testing.T) {
			file := node.Config{
				Name: "node-1", RunDir: "/run/mw", Sockets: "/run/sockets", CNI: node.CNI{Socket: "/run/cni.sock"}, HTTP: ":9473",
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
			}
			got, want := file, file
			want.Version = version
			tt.want(&want)
			var over nodeFlags
			cmd := &cobra.Command{}
			over.register(cmd)
			if err := cmd.ParseFlags([]string{tt.arg}); err != nil {
				t.Fatal(err)
			}
			over.apply(&got)
			same := []cmp.Option{
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
			}
			if diff := cmp.Diff(want, got, same...); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}
