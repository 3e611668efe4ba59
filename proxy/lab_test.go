package proxy_test

import (
	"testing"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/proxy"
)

// TestMain gives the tests a network namespace of their own, in which they may make others.
func TestMain(m *testing.M) {
	proxy.Ethernet = ethernet
	lab.Main(m)
}

func ethernet(t *testing.T, names ...string) (all []proxy.Namespace) {
	t.Helper()
	var ends []*lab.Namespace
	for _, name := range names {
		n, err := lab.NewNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		ends, all = append(ends, n), append(all, n)
	}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{Userspace: true}, ends...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return all
}
