package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/netns"
)

func leaseOf(t *testing.T, path string) ipam.Lease {
	t.Helper()
	id, err := netns.Identify(path)
	if err != nil {
		t.Fatal(err)
	}
	return ipam.Lease{Netns: path, NetnsDev: id.Dev, NetnsInode: id.Inode, PIDNS: pidNamespace()}
}

func TestSight(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "netns", "a")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	lease := leaseOf(t, file)
	own := leaseOf(t, fmt.Sprintf("/proc/%d/ns/net", os.Getpid()))
	with := func(l ipam.Lease, change func(*ipam.Lease)) ipam.Lease {
		change(&l)
		return l
	}
	elsewhere := func(l *ipam.Lease) { l.PIDNS++ }
	for _, tt := range []struct {
		name  string
		lease ipam.Lease
		see   sight
		proof bool
	}{
		{"there", lease, present, true},
		{"another one of its kind", with(lease, func(l *ipam.Lease) { l.NetnsInode++ }), gone, true},
		{"a file on which the namespace is not seen", with(lease, func(l *ipam.Lease) { l.NetnsDev++ }), hidden, false},
		{"nothing, in its directory", with(lease, func(l *ipam.Lease) { l.Netns = file + "x" }), gone, false},
		{"no directory", with(lease, func(l *ipam.Lease) { l.Netns = filepath.Join(dir, "other", "a") }), hidden, false},
		{"below a file", with(lease, func(l *ipam.Lease) { l.Netns = filepath.Join(file, "a") }), hidden, false},
		{"another pid namespace does not matter to it", with(lease, elsewhere), present, true},
		{"process", own, present, true},
		{"process of another network namespace", with(own, func(l *ipam.Lease) { l.NetnsInode++ }), gone, true},
		{"process ended", with(own, func(l *ipam.Lease) { l.Netns = "/proc/4194305/ns/net" }), gone, false}, // above the kernel's PID_MAX_LIMIT
		{"process has closed it", with(own, func(l *ipam.Lease) { l.Netns = "/proc/self/fd/1000000" }), gone, false},
		{"process of another pid namespace", with(own, elsewhere), hidden, false},
		{"number of another pid namespace", with(own, func(l *ipam.Lease) { elsewhere(l); l.NetnsInode++ }), hidden, false},
		{"no process of that number in this pid namespace", with(own, func(l *ipam.Lease) { elsewhere(l); l.Netns = "/proc/4194305/ns/net" }), hidden, false},
	} {
		if see, proof := sightOf(tt.lease); see != tt.see || proof != tt.proof {
			t.Errorf("%s: got %v, %v; want %v, %v", tt.name, see, proof, tt.see, tt.proof)
		}
	}
}

// A daemon that sees none of several namespaces keeps their addresses until the runtime deletes the pods, or until it sees
// a namespace again.
func TestAllHidden(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(t, dir)
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		d.mustAdd(id)
	}
	d.stop()
	away := t.TempDir()
	move := func(from, to string, ids ...string) {
		t.Helper()
		for _, id := range ids {
			if err := os.Rename(filepath.Join(from, "netns-"+id), filepath.Join(to, "netns-"+id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	move(dir, away, ids...)
	d.node = &fakeNode{has: map[string]bool{}}
	s, leases := d.again()
	s.lookAround()
	if got := len(leases.All()); got != len(ids) || d.node.asks > 0 {
		t.Errorf("%d of %d leases are left, %d devices asked for", got, len(ids), d.node.asks)
	}
	// What the runtime says holds.
	if err := bury(d.socket(), keyOf("a")); err != nil {
		t.Fatal(err)
	}
	s.lookAround()
	if _, ok := leases.Get(keyOf("a")); ok {
		t.Error("a tombstone was not obeyed")
	}
	mustLie(t, tombstoneDir(d.socket()))
	// One is seen again, so that the others would be.
	move(away, dir, "b")
	s.lookAround()
	if all := leases.All(); len(all) != 1 || all[0].ContainerID != "b" || !s.Attached(keyOf("b")) {
		t.Errorf("left: %v", all)
	}
}

// An ADD shows too that the daemon sees namespaces.
func TestAddEndsDoubt(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(t, dir)
	for _, id := range []string{"a", "b"} {
		d.mustAdd(id)
	}
	d.stop()
	for _, id := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(dir, "netns-"+id)); err != nil {
			t.Fatal(err)
		}
	}
	d = newDaemon(t, dir)
	d.server.lookAround()
	if got := len(d.leases.All()); got != 2 {
		t.Errorf("%d leases are left, want 2", got)
	}
	d.mustAdd("c")
	d.server.lookAround()
	d.mustHave("c")
}
