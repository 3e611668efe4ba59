package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

func TestMain(m *testing.M) {
	lab.RegisterRole("no-tun", noTUN)
	lab.RegisterRole("no-root", noRoot)
	lab.RegisterRole("no-ipv6", noIPv6)
	lab.RegisterRole("as-user", asUser)
	lab.Main(tests{m})
}

// tests removes what the tests built together, since lab.Main does not return.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	defer removeProgram()
	return t.m.Run()
}

// soak skips a long test where nobody asked for it.
func soak(t *testing.T) {
	t.Helper()
	if os.Getenv("MIDDLEWAY_SOAK") != "1" {
		t.Skip("long: set MIDDLEWAY_SOAK=1")
	}
}

// fewer returns a tenth of n in a short run, for slow machines.
func fewer[N int | int64](n N) N {
	if testing.Short() {
		return n / 10
	}
	return n
}

func newNamespace(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// newCluster makes a cluster whose pods reach nothing outside of it: packets that no route leads to are dropped.
func newCluster(t testing.TB, c lab.ClusterConfig) *lab.Cluster {
	t.Helper()
	change := c.Change
	c.Change = func(number int, n *node.Config) {
		n.Egress.Off = true
		if change != nil {
			change(number, n)
		}
	}
	cl, err := lab.NewCluster(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, n := range cl.Nodes {
			if strings.Contains(n.Daemon().Tail(), "panic:") || t.Failed() {
				st, err := n.Status()
				t.Errorf("%s: %+v %v\n%s", n.Name(), st.Stack, err, n.Daemon().Tail())
			}
		}
		if err := cl.Close(); err != nil {
			t.Error(err)
			for _, n := range cl.Nodes {
				t.Logf("%s: %s", n.Name(), n.Daemon().Tail())
			}
		}
	})
	return cl
}

func mustStatus(t testing.TB, n *lab.Node) node.Status {
	t.Helper()
	st, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// mustHave fails a test that got an error from the kernel, and skips it if the error is that the kernel lacks what the test needs.
func mustHave(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel cannot: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// eventually fails the test if ok does not become true within 20 seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func mustPing(t testing.TB, from *lab.Namespace, dst netip.Addr, size int) (rtt time.Duration) {
	t.Helper()
	persist(t, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if rtt, err = from.Ping(ctx, dst, size); err != nil {
			err = fmt.Errorf("%d bytes: %w", size, err)
		}
		return err
	})
	return rtt
}

// persist lets something that may lose a packet try three times. All namespaces share a queue on each processor, in which veth,
// loopback and the kernel's other devices put packets (net.core.netdev_max_backlog): what floods it elsewhere on a busy machine costs a
// packet here. What middleway itself drops is counted, and no second try hides that.
func persist(t testing.TB, try func() error) {
	t.Helper()
	for i := 1; ; i++ {
		err := try()
		switch {
		case err == nil:
			return
		case i == 3:
			t.Error(err)
			return
		}
		t.Logf("try %d: %v", i, err)
	}
}

// host returns the address with number h in a range.
func host(cidr netip.Prefix, h int) netip.Addr {
	a := cidr.Masked().Addr()
	for range h {
		a = a.Next()
	}
	return a
}

// drops is what was dropped, by reason.
type drops map[string]uint64

// minus returns what came on top of before, and omits what did not change.
func (d drops) minus(before drops) drops {
	more := maps.Clone(d)
	for reason, n := range before {
		if more[reason] -= n; more[reason] == 0 {
			delete(more, reason)
		}
	}
	return more
}

func (d drops) sum() (n uint64) {
	for _, v := range d {
		n += v
	}
	return n
}

func (d drops) String() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(d)) {
		parts = append(parts, fmt.Sprint(reason, " ", d[reason]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func dropsOf(t testing.TB, n *lab.Node) drops { return mustStatus(t, n).Stack.Drops }
