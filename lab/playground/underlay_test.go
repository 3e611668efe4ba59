package playground

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/node"
)

// Nodes of either underlay answer, are known by the addresses of the plan, and are started again when they end.
func TestUnderlay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config Config
		want   string
	}{
		{"the kernel's, or userspace where it has none", Config{Underlay: Kernel}, kernelUnderlay(t)},
		{"userspace", Config{Underlay: Userspace}, "a switch in userspace"},
		{"machine", Config{Underlay: Machine}, "the machine's loopback"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Dir, tt.config.Pods = shortDir(t), &manifest.Set{}
			c, err := New(t.Context(), tt.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			if got := c.Underlay(); got != tt.want {
				t.Errorf("joined by %q, want %q", got, tt.want)
			}
			for i, n := range c.Nodes() {
				want := []netip.Addr{lab.NodeAddr4(i + 1).Addr()}
				if lab.HasIPv6() {
					want = append(want, lab.NodeAddr6(i+1).Addr())
				}
				if got := n.Addresses(); !slices.Equal(got, want) {
					t.Errorf("addresses %v, want %v", got, want)
				}
				if st := n.Status(); !st.Ready || st.MTU != 1450 {
					t.Errorf("%+v", st)
				}
			}
			mustReach(t, c)
			n := c.Nodes()[0]
			before := n.Daemon().PID()
			if err := n.Daemon().Kill(); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				if st, err := node.ReadStatus(t.Context(), n.Config.RunDir); err == nil && st.PID != before {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("the daemon was not started again: %+v", n.Status())
				}
			}
			mustReach(t, c)
		})
	}
}

// kernelUnderlay returns the words for what joins two nodes on this kernel: whether it has veth it is asked itself.
func kernelUnderlay(t *testing.T) string {
	t.Helper()
	ns, err := lab.NewNamespace("ask")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	nl, err := ns.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "veth0"
	pair := netlink.NewVeth(attrs)
	pair.PeerName = "veth1"
	switch err := nl.LinkAdd(pair); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return "a switch in userspace"
	case err != nil:
		t.Fatal(err)
	}
	return "the kernel's veth"
}

// mustReach pings the second node's gateway from the first node's host.
func mustReach(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Nodes()[0].Ping(ctx, node.Gateway(lab.PodCIDR4(2)), 56); err != nil {
		t.Error(err)
	}
}

// shortDir is t.TempDir, but short enough for the path of a unix socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir + "/up"
}
