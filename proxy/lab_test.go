package proxy_test

import (
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/proxy"
)

// TestMain gives the tests a network namespace of their own, in which they may make others.
func TestMain(m *testing.M) {
	proxy.JoinNamespaces = joinNamespaces // lab imports proxy, so that its own tests cannot import lab
	lab.Main(m)
}

func joinNamespaces(t *testing.T, names ...string) (all []proxy.Namespace) {
	t.Helper()
	var nodes []*lab.Namespace
	for _, name := range names {
		n, err := lab.NewNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		nodes = append(nodes, n)
		all = append(all, n)
	}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{Userspace: true}, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return all
}
