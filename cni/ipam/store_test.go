package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	cidr4 = netip.MustParsePrefix("10.244.1.0/24")
	cidr6 = netip.MustParsePrefix("fd00:10:244:1::/64")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func open(t *testing.T, path string, cidrs ...netip.Prefix) *Store {
	t.Helper()
	s, err := Open(Config{Path: path, CIDRs: cidrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newStore(t *testing.T, cidrs ...netip.Prefix) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "leases.db"), cidrs...)
}

func lease(id string) Lease {
	return Lease{
		Key: Key{id, "eth0"}, Network: "middleway", Pod: Pod{"default", "pod-" + id, "uid"}, Netns: "/run/netns/" + id,
		NetnsDev: 4, NetnsInode: 4026531840, PIDNS: 4026531836, Since: time.Unix(1700000000, 0).UTC(),
	}
}

func reserve(t *testing.T, s *Store, id string, want ...netip.Addr) Lease {
	t.Helper()
	l, err := s.Reserve(lease(id), want)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func equalAddrs(a, b netip.Addr) bool { return a == b }

// What a daemon wrote the next one reads, in every state.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	s := open(t, path, cidr4, cidr6)
	reserve(t, s, "pending")
	reserve(t, s, "attached")
	reserve(t, s, "released")
	if err := errors.Join(s.Commit(Key{"attached", "eth0"}, 7), s.Release(Key{"released", "eth0"}), s.Release(Key{"never", "eth0"})); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(Key{"never", "eth0"}, 7); err == nil {
		t.Error("a lease that does not exist was committed")
	}
	want := s.All()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, cidr4, cidr6)
	if diff := cmp.Diff(want, s.All(), cmp.Comparer(equalAddrs)); diff != "" {
		t.Errorf("leases (-written +read):\n%s", diff)
	}
	if len(want) != 2 || want[0].State != Attached || want[0].Index != 7 || want[1].State != Pending {
		t.Errorf("leases %+v", want)
	}
	// The address that was released rests.
	if got := reserve(t, s, "next").Addrs; got[0] != addr("10.244.1.5") || got[1] != addr("fd00:10:244:1::5") {
		t.Errorf("got %v, want those after the last ones", got)
	}
}

// A boot ends all namespaces, and so the leases; addresses go on behind the last one.
func TestBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	last := ""
	for _, tt := range []struct {
		boot string
		kept int // leases of the former boots
	}{{"", 0}, {"one", 1}, {"one", 2}, {"", 3}, {"two", 0}, {"two", 1}, {"one", 0}} {
		s, err := Open(Config{Path: path, CIDRs: []netip.Prefix{cidr4}, Boot: tt.boot})
		if err != nil {
			t.Fatal(err)
		}
		if got := len(s.All()); got != tt.kept {
			t.Errorf("boot %q: %d leases, want %d", tt.boot, got, tt.kept)
		}
		got := reserve(t, s, fmt.Sprintf("pod-%d", tt.kept)).Addrs[0].String()
		if got == last {
			t.Errorf("boot %q: %s is leased again at once", tt.boot, got)
		}
		last = got
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A second process is kept out.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	open(t, path, cidr4)
	_, err := Open(Config{Path: path, CIDRs: []netip.Prefix{cidr4}})
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}

// Which addresses a pod never gets, at the range's edges.
func TestUnusable(t *testing.T) {
	for _, tt := range []struct {
		cidr string
		want []string
	}{
		{"10.244.1.0/30", []string{"10.244.1.2"}},
		{"10.244.1.8/29", []string{"10.244.1.10", "10.244.1.11", "10.244.1.12", "10.244.1.13", "10.244.1.14"}},
		{"255.255.255.248/29", []string{"255.255.255.250", "255.255.255.251", "255.255.255.252", "255.255.255.253", "255.255.255.254"}},
		{"fd00::/126", []string{"fd00::2", "fd00::3"}},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
	} {
		t.Run(tt.cidr, func(t *testing.T) {
			s := newStore(t, netip.MustParsePrefix(tt.cidr))
			var got []string
			for i := range tt.want {
				if err := s.Available(); err != nil {
					t.Fatal(err)
				}
				got = append(got, reserve(t, s, fmt.Sprint("pod-", i)).Addrs[0].String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			_, err := s.Reserve(lease("more"), nil)
			if !errors.Is(err, ErrExhausted) || !errors.Is(s.Available(), ErrExhausted) || !strings.Contains(err.Error(), tt.cidr) {
				t.Errorf("exhausted: %v, %v", err, s.Available())
			}
			if err := s.Release(Key{"pod-0", "eth0"}); err != nil || s.Available() != nil {
				t.Errorf("%v, %v", err, s.Available())
			}
			if got := reserve(t, s, "more").Addrs[0].String(); got != tt.want[0] {
				t.Errorf("got %s, want the one that was released", got)
			}
		})
	}
	for _, small := range []string{"10.244.1.0/31", "10.244.1.1/32", "fd00::/127"} {
		if _, err := Open(Config{Path: filepath.Join(t.TempDir(), "l"), CIDRs: []netip.Prefix{netip.MustParsePrefix(small)}}); err == nil {
			t.Errorf("%s was accepted", small)
		}
	}
}

func TestRequested(t *testing.T) {
	s, err := Open(Config{
		Path: filepath.Join(t.TempDir(), "leases.db"), CIDRs: []netip.Prefix{cidr4, cidr6},
		Taken: map[netip.Addr]string{addr("10.244.1.2"): "static"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reserve(t, s, "a", addr("10.244.1.9"))
	for _, tt := range []struct {
		want  []netip.Addr
		words string
	}{
		{[]netip.Addr{addr("10.244.1.9")}, "belongs to default/pod-a"},
		{[]netip.Addr{addr("10.244.1.2")}, "belongs to static"},
		{[]netip.Addr{addr("10.244.1.0")}, "no address for a pod"},
		{[]netip.Addr{addr("10.244.1.1")}, "no address for a pod"},
		{[]netip.Addr{addr("10.244.1.255")}, "no address for a pod"},
		{[]netip.Addr{addr("fd00:10:244:1::")}, "no address for a pod"},
		{[]netip.Addr{addr("10.244.2.9")}, "no address for a pod"},
		{[]netip.Addr{addr("::ffff:10.244.1.10")}, "no address for a pod"},
		{[]netip.Addr{addr("10.244.1.10"), addr("10.244.1.11")}, "ask for one"},
	} {
		_, err := s.Reserve(lease("b"), tt.want)
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%v: %v, want %q", tt.want, err, tt.words)
		}
	}
	if got := reserve(t, s, "b", addr("fd00:10:244:1::9")).Addrs; got[0] != addr("10.244.1.3") || got[1] != addr("fd00:10:244:1::9") {
		t.Errorf("got %v", got)
	}
	if _, err := s.Reserve(lease("b"), nil); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if got := s.Outside(Lease{Addrs: []netip.Addr{addr("10.244.1.9"), addr("10.9.1.9")}}); len(got) != 1 || got[0] != addr("10.9.1.9") {
		t.Errorf("outside: %v", got)
	}
}

// Random work against a slow, obvious model: no address has two owners, none comes back before the others of the range.
func TestRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	path := filepath.Join(t.TempDir(), "leases.db")
	cidr := netip.MustParsePrefix("10.244.1.0/28") // .2 to .14
	s := open(t, path, cidr)
	owner, last := map[netip.Addr]string{}, addr("10.244.1.1")
	for i := range 500 {
		id := fmt.Sprint("pod-", rnd.IntN(20))
		l, err := s.Reserve(lease(id), nil)
		switch {
		case err == nil:
			want := last
			for want = following(want); owner[want] != ""; want = following(want) {
			}
			if l.Addrs[0] != want {
				t.Fatalf("step %d: got %v, want %v", i, l.Addrs[0], want)
			}
			owner[want], last = id, want
		case errors.Is(err, ErrExists):
			if err := s.Release(Key{id, "eth0"}); err != nil {
				t.Fatal(err)
			}
			for a, o := range owner {
				if o == id {
					delete(owner, a)
				}
			}
		case !errors.Is(err, ErrExhausted) || len(owner) != 13:
			t.Fatalf("step %d: %v with %d leases", i, err, len(owner))
		}
		if rnd.IntN(50) == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, cidr)
		}
	}
}

func following(a netip.Addr) netip.Addr {
	if a = a.Next(); a == addr("10.244.1.15") {
		return addr("10.244.1.2")
	}
	return a
}

func TestConcurrent(t *testing.T) {
	s := newStore(t, cidr4, cidr6)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				id := fmt.Sprintf("pod-%d-%d", i, j)
				if _, err := s.Reserve(lease(id), nil); err != nil {
					t.Error(err)
				}
				if err := s.Commit(Key{id, "eth0"}, 2); err != nil {
					t.Error(err)
				}
				_, _ = s.All(), s.Available()
				if j%2 == 0 {
					if err := s.Release(Key{id, "eth0"}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, l := range s.All() {
		for _, a := range l.Addrs {
			if seen[a] {
				t.Errorf("%v twice", a)
			}
			seen[a] = true
		}
	}
	if len(seen) != 80 {
		t.Errorf("%d addresses, want 80", len(seen))
	}
}

// A file that was cut short, or has a page of zeroes, is an error that names it, or has its leases, at most without the last
// transaction; never a panic.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.db")
	s := open(t, path, cidr4)
	for i := range 20 {
		reserve(t, s, fmt.Sprint("pod-", i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page, refused := os.Getpagesize(), 0
	for at := 0; at < len(good); at += page {
		zeroed := slices.Clone(good)
		clear(zeroed[at : at+page])
		for name, b := range map[string][]byte{"zero": zeroed, "cut": good[:at]} {
			path := filepath.Join(dir, fmt.Sprint(name, at)) // bbolt keeps the lock of a file on which it panicked
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(Config{Path: path, CIDRs: []netip.Prefix{cidr4}})
			switch {
			case err == nil:
				// bbolt has two pages that say where everything is, of the last two transactions in turn.
				if got := len(s.All()); got < 19 && len(b) > 0 || got != 20 && at >= 2*page {
					t.Errorf("%s: %d leases of 20 and no error", path, got)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			case !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path):
				t.Errorf("the file is not named: %v", err)
			default:
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no damaged file was refused")
	}
}

func FuzzDecodeLease(f *testing.F) {
	f.Add([]byte(`{"containerID":"a","ifname":"eth0","network":"n","addrs":["10.244.1.2","fd00::2"],"netns":"/n","netnsDev":4,"netnsInode":5,"state":"pending","since":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"containerID":"a/b","ifname":"eth0","network":"n","addrs":["10.244.1.2"],"netns":"/n","netnsDev":4,"netnsInode":5,"state":"attached","since":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"containerID":"a","ifname":"eth0","network":"n","addrs":["10.244.1.2"],"portMappings":[{"hostIP":"127.0.0.1","hostPort":8080,"containerPort":80,"protocol":"udp"}],"netns":"/n","netnsDev":4,"netnsInode":5,"state":"pending","since":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"addrs":["::ffff:10.1.1.1","fe80::1%eth0"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLease(b)
		if err != nil {
			return
		}
		s := newStore(t, cidr4)
		if l.State == Attached {
			return
		}
		l.Addrs = nil
		if slices.ContainsFunc(l.PortMappings, func(m PortMapping) bool { return m.HostIP.Is6() }) {
			return // the store has addresses of IPv4 alone
		}
		again, err := s.Reserve(l, nil)
		if err != nil {
			t.Fatalf("a good lease cannot be written: %v", err)
		}
		if got, ok := s.Get(l.Key); !ok || got.Key != again.Key {
			t.Errorf("got %v, %v", got, ok)
		}
	})
}
