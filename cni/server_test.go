package cni

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/unixsock"
)

// fakeNode takes every device, and remembers which it has.
type fakeNode struct {
	mu   sync.Mutex
	has  map[string]bool // by container
	fail map[string]error
	asks int // how often a device was to be reopened
}

type fakeAttachment struct {
	n  *fakeNode
	id string
}

func (n *fakeNode) Grant([]netip.Addr) Grant { return Grant{MTU: 1450, Queues: 2} }

// failWith has the steps named "step container" fail from now on.
func (n *fakeNode) failWith(steps map[string]error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = steps
}

func (n *fakeNode) Adopt(l ipam.Lease, queues []int) (Attachment, error) {
	unixsock.Close(queues...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.fail["adopt "+l.ContainerID]; err != nil {
		return nil, err
	}
	n.has[l.ContainerID] = true
	return fakeAttachment{n, l.ContainerID}, nil
}

func (n *fakeNode) Reopen(l ipam.Lease) (Attachment, error) {
	n.mu.Lock()
	n.asks++
	n.mu.Unlock()
	return n.Adopt(l, nil)
}

func (a fakeAttachment) Keep() error {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	return a.n.fail["keep "+a.id]
}

func (a fakeAttachment) Lost() bool {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	return a.n.fail["lose "+a.id] != nil
}

func (a fakeAttachment) Remove() error {
	a.n.mu.Lock()
	defer a.n.mu.Unlock()
	delete(a.n.has, a.id)
	return a.n.fail["remove "+a.id]
}

func (n *fakeNode) pods() (ids []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range n.has {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// daemon is a server on a fakeNode.
type daemon struct {
	t      *testing.T
	dir    string
	node   *fakeNode
	leases *ipam.Store
	server *Server
	stop   func()
}

func newDaemon(t *testing.T, dir string, change ...func(*Server)) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, node: &fakeNode{has: map[string]bool{}, fail: map[string]error{}}}
	var err error
	d.leases, err = ipam.Open(ipam.Config{Path: filepath.Join(dir, "leases.db"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	if err == nil {
		d.server, err = New(Config{Socket: d.socket(), Leases: d.leases, Node: d.node})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(d.server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.server.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, d.leases.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) socket() string { return filepath.Join(d.dir, "cni.sock") }

// request is an ADD of a pod whose namespace is a file: the server looks no closer.
func (d *daemon) request(op, id string) *request {
	d.t.Helper()
	path := filepath.Join(d.dir, "netns-"+id)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	ns, err := netns.Identify(path)
	if err != nil {
		d.t.Fatal(err)
	}
	return &request{Op: op, Key: ipam.Key{ContainerID: id, IfName: "eth0"}, Network: "middleway", Netns: path, NetnsID: ns}
}

func (d *daemon) dial() conn {
	d.t.Helper()
	c, err := dial(d.socket(), time.Now().Add(20*time.Second))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// add goes through an ADD up to the daemon's last answer.
func (d *daemon) add(id string) (conn, error) {
	d.t.Helper()
	return d.addAs(d.request(opAdd, id))
}

func (d *daemon) addAs(r *request) (conn, error) {
	d.t.Helper()
	c := d.dial()
	if _, err := ask(c, d.socket(), r); err != nil {
		return c, err
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	_, err = ask(c, d.socket(), &request{Op: opDevice, Index: 2}, int(f.Fd()))
	return c, err
}

func (d *daemon) mustAdd(id string) {
	d.t.Helper()
	d.mustAddAs(d.request(opAdd, id))
}

func (d *daemon) mustAddAs(r *request) {
	d.t.Helper()
	c, err := d.addAs(r)
	if err == nil {
		err = c.send(&request{Op: opDone})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	// A request of the same key waits for the ADD to end.
	check := *r
	check.Op = opCheck
	if _, err := askOnce(d.socket(), time.Now().Add(20*time.Second), &check); err != nil {
		d.t.Fatal(err)
	}
}

// mustHave waits until leases and attachments are those of the given pods.
func (d *daemon) mustHave(ids ...string) {
	d.t.Helper()
	var leased []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		leased = nil
		for _, l := range d.leases.All() {
			leased = append(leased, l.ContainerID)
		}
		if slices.Equal(leased, ids) && slices.Equal(d.node.pods(), ids) {
			return
		}
	}
	d.t.Fatalf("leases %v, attachments %v; want %v", leased, d.node.pods(), ids)
}

// again returns the next daemon's server on the same node, which does not run, and its leases.
func (d *daemon) again() (*Server, *ipam.Store) {
	d.t.Helper()
	leases, err := ipam.Open(ipam.Config{Path: filepath.Join(d.dir, "leases.db"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { leases.Close() })
	s, err := New(Config{Socket: d.socket(), Leases: leases, Node: d.node})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	return s, leases
}

// mustServe waits until the server has so many connections.
func (d *daemon) mustServe(want int) {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.server.mu.Lock()
		conns := len(d.server.conns)
		d.server.mu.Unlock()
		if conns == want {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%d connections are open, want %d", conns, want)
		}
	}
}

// files returns how many descriptors are open when the server has hung up on everybody.
func (d *daemon) files() int {
	d.t.Helper()
	d.mustServe(0)
	return countFiles(d.t)
}

// Wherever an ADD breaks off, it is taken back.
func TestAddBreaksOff(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	d.mustAdd("keeper")
	mine := errors.New("mine")
	d.node.failWith(map[string]error{"adopt refused": mine, "keep unkept": mine})
	before := d.files()

	c := d.dial() // says nothing
	c.Close()
	c = d.dial()
	if _, err := ask(c, d.socket(), d.request(opAdd, "granted")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.mustHave("keeper")

	c = d.dial()
	if _, err := ask(c, d.socket(), d.request(opAdd, "confused")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(c, d.socket(), &request{Op: opDone}, int(f.Fd())); err == nil {
		t.Error("done before there is a device")
	}
	f.Close()
	c.Close()

	for _, id := range []string{"refused", "unkept"} {
		c, err := d.add(id)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != codeInternal || e.Details != "mine" {
			t.Errorf("%s: %v", id, err)
		}
		c.Close()
	}
	d.mustHave("keeper")

	c, err = d.add("silent") // the plugin ends before it has printed
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.mustHave("keeper")
	for end := time.Now().Add(20 * time.Second); d.files() != before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors open, %d before", d.files(), before)
		}
	}
}

// What does not begin a conversation is refused.
func TestRefusedRequests(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	until := time.Now().Add(20 * time.Second)
	elsewhere := d.request(opAdd, "a")
	elsewhere.NetnsID.Inode++
	for _, tt := range []struct {
		r    *request
		code uint
	}{
		{&request{Op: opDevice}, codeDecode},
		{&request{Op: opDone}, codeDecode},
		{&request{Op: "reboot"}, codeDecode},
		{&request{Op: opDel, Key: ipam.Key{ContainerID: "../a", IfName: "eth0"}}, codeEnvironment},
		{&request{Op: opAdd, Key: ipam.Key{ContainerID: "a", IfName: "eth0"}, Network: "n", Netns: "relative"}, codeNetns},
		{&request{Op: opAdd, Key: ipam.Key{ContainerID: "a", IfName: "eth0"}, Network: "n", Netns: "/nowhere"}, codeNetns},
		{elsewhere, codeNetns},
	} {
		_, err := askOnce(d.socket(), until, tt.r)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%+v: got %v, want code %d", tt.r, err, tt.code)
		}
	}
	d.mustHave()
}

// GC goes on after an error, and so does a daemon that ends.
func TestCollectGoesOn(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	for _, id := range []string{"a", "b", "c"} {
		d.mustAdd(id)
	}
	d.node.failWith(map[string]error{"remove a": errors.New("mine")})
	r := &request{Op: opGC, Network: "middleway", Valid: []ipam.Key{{ContainerID: "b", IfName: "eth0"}}}
	if _, err := askOnce(d.socket(), time.Now().Add(20*time.Second), r); err != nil {
		t.Error(err)
	}
	d.mustHave("b")
}

// A daemon that ends while a plugin prints keeps the attachment; the next one takes it up, and what was not finished it ends.
func TestEndAndStart(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(t, dir)
	d.mustAdd("a")
	if _, err := d.add("printing"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(d.dial(), d.socket(), d.request(opAdd, "granted")); err != nil {
		t.Fatal(err)
	}
	d.stop()
	if _, err := os.Stat(d.socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := bury(d.socket(), ipam.Key{ContainerID: "never", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	d = newDaemon(t, dir)
	d.mustHave("a", "printing")
	if there, err := isBuried(d.socket(), tombstoneName(ipam.Key{ContainerID: "never", IfName: "eth0"})); there || err != nil {
		t.Error("a tombstone without a lease was kept")
	}
	d.stop()

	// The paths name other namespaces now.
	for _, id := range []string{"a", "printing"} {
		path := filepath.Join(dir, "netns-"+id)
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "netns-a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newDaemon(t, dir).mustHave()
}

// A pod that cannot be taken up keeps its lease and is tried again; one whose device is gone does not.
func TestTakeUpAgain(t *testing.T) {
	dir := t.TempDir()
	d := newDaemon(t, dir)
	for _, id := range []string{"gone", "later"} {
		d.mustAdd(id)
	}
	d.stop()
	d.node = &fakeNode{has: map[string]bool{}, fail: map[string]error{"adopt gone": link.ErrGone, "adopt later": errors.New("mine")}}
	s, leases := d.again()
	later := ipam.Key{ContainerID: "later", IfName: "eth0"}
	if all := leases.All(); len(all) != 1 || all[0].Key != later || s.Attached(later) {
		t.Errorf("leases %v, attached %v", all, s.Attached(later))
	}
	d.node.failWith(nil)
	s.lookAround()
	if !s.Attached(later) {
		t.Error("it was not tried again")
	}
}
