package kept

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/bbolt"

	"github.com/middleway-net/middleway/k8s/object"
)

// objects has one of each kind, with all fields.
func objects() []object.Object {
	addrs := []netip.Addr{netip.MustParseAddr("10.96.0.20"), netip.MustParseAddr("fd00:10:96::20")}
	web := object.Key{Namespace: "default", Name: "web"}
	return []object.Object{
		&object.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Addresses: addrs, Zone: "a", Annotations: map[string]string{"middleway.net/tunnel": "1"}},
		&object.Namespace{Name: "default"},
		&object.Pod{Key: web, Addrs: addrs, Node: "n1", HostNetwork: true, Ended: true},
		&object.Service{
			Key: web, ClusterIPs: addrs, ExternalIPs: addrs, Headless: true, ExternalName: "example.com", Affinity: time.Hour, InternalLocal: true, ExternalLocal: true, NotProxied: true,
			Scheduler: "maglev", Ports: []object.ServicePort{{Name: "http", Protocol: object.TCP, Port: 80, NodePort: 30080}},
		},
		&object.EndpointSlice{
			Key: web, Service: "web", NotProxied: true, Ports: []object.EndpointPort{{Name: "http", Protocol: object.SCTP, Port: 8080}},
			Endpoints: []object.Endpoint{{
				Addr: addrs[0], Hostname: "web-0", Node: "n1", Ready: true, Serving: true, Terminating: true,
				Hints: &object.Hints{Zones: []string{"a"}, Nodes: []string{"n1"}},
			}},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects.db")
	f, all := open(t, path, nil)
	if len(all) != 0 {
		t.Fatalf("a new file has %v", all)
	}
	must(t, f.Write(setAll()))
	must(t, f.Close())

	f, all = open(t, path, nil)
	if diff := cmp.Diff(objects(), all, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must(t, f.Write([]Change{{Kind: object.Nodes, Name: object.Key{Name: "n1"}}, {Kind: object.Pods, Name: object.Key{Name: "none"}}}))
	must(t, f.Close())
	f, all = open(t, path, nil)
	defer f.Close()
	if len(all) != len(object.Kinds)-1 || slices.ContainsFunc(all, func(o object.Object) bool { return o.Kind() == object.Nodes }) {
		t.Errorf("after the node was deleted: %v", all)
	}
}

// Whatever a crash or a stranger makes of the file, the daemon starts: with the objects or without them, and can keep others from then on.
func TestDamaged(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole.db")
	f, _ := open(t, whole, nil)
	must(t, f.Write(setAll()))
	must(t, f.Write(many(2000)))
	must(t, f.Close())
	f, good := open(t, whole, nil)
	must(t, f.Close())
	text, err := os.ReadFile(whole)
	must(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	tests := map[string][]byte{
		"text": []byte("no database at all, but some bytes that somebody left here\n"),
		"zero": make([]byte, len(text)),
	}
	for _, n := range []int{1, 4096, 8192, 16384, len(text) / 2, len(text) - 4096} {
		tests[fmt.Sprintf("cut to %d of %d bytes", n, len(text))] = text[:n]
	}
	for i := range 30 {
		tests[fmt.Sprint("crash ", i)] = crashed(r, text)
	}
	at := bytes.Index(text, []byte("middleway.net/tunnel"))
	tests["one byte changed"] = slices.Concat(text[:at], []byte("M"), text[at+1:])
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "objects.db")
			must(t, os.WriteFile(path, b, 0o600))
			var log bytes.Buffer
			f, all := open(t, path, &log)
			_, err := os.Stat(path + aside)
			if told := strings.Count(log.String(), "\n"); (err == nil) != (told == 1) || told > 1 {
				t.Errorf("put aside: %v; told %q", err == nil, log.String())
			}
			for _, o := range all {
				if !slices.ContainsFunc(good, func(g object.Object) bool { return reflect.DeepEqual(g, o) }) {
					t.Errorf("nobody wrote %+v", o)
				}
			}
			_ = f.Write(setAll()) // it may turn out to be damaged only now
			_ = f.Close()
		})
	}
}

// crashed returns a file as a machine may leave it that loses power: pages and sectors that were never written, or are those of
// another time, and an end that is missing.
func crashed(r *rand.Rand, text []byte) []byte {
	const page, sector = 4096, 512
	b := bytes.Clone(text)
	for range 1 + r.IntN(4) {
		at := r.IntN(len(b)/page) * page
		switch r.IntN(4) {
		case 0:
			clear(b[at : at+page])
		case 1:
			clear(b[at+sector*r.IntN(page/sector) : at+page])
		case 2:
			from := r.IntN(len(b)/page) * page
			copy(b[at:at+page], text[from:])
		case 3:
			clear(b[len(b)-r.IntN(len(b)/4):])
		}
	}
	return b
}

func TestOtherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects.db")
	f, _ := open(t, path, nil)
	must(t, f.Write(setAll()))
	must(t, f.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaVersion, []byte("0")) }))
	must(t, f.Close())
	f, all := open(t, path, nil)
	must(t, f.Close())
	if len(all) != 0 {
		t.Errorf("%d objects of another version", len(all))
	}
}

// The same version always means the same form of objects.
func TestVersion(t *testing.T) {
	var all []byte
	for _, o := range objects() {
		b, err := encode(o)
		must(t, err)
		all = append(all, b...)
	}
	if got, want := fmt.Sprintf("version %s: %08x", version, crc32.ChecksumIEEE(all)), "version 2: ca5767d5"; got != want {
		t.Errorf("objects are kept in the form of %s, and were in that of %s: give version another value, and write the new form here", got, want)
	}
}

func TestCannotOpen(t *testing.T) {
	dir := t.TempDir()
	_, _, err := Open(filepath.Join(dir, "missing", "objects.db"), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "choose another runDir") {
		t.Errorf("got %v", err)
	}
	f, _ := open(t, filepath.Join(dir, "objects.db"), nil)
	defer f.Close()
	if _, _, err := Open(f.path, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two have the file open")
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range setAll() {
		text, err := encode(c.Object)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(c.Kind), c.Name.String(), text[4:])
	}
	f.Fuzz(func(t *testing.T, kind byte, key string, text []byte) {
		o, err := unmarshal(object.Kinds[int(kind)%len(object.Kinds)], key, text)
		if (o == nil) == (err == nil) {
			t.Fatalf("got %v, %v", o, err)
		}
		if err != nil {
			return
		}
		again, err := encode(o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(o.Kind(), key, again)
		if diff := cmp.Diff(o, back, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}

func setAll() (changes []Change) {
	for _, o := range objects() {
		changes = append(changes, Change{o.Kind(), o.Named(), o})
	}
	return changes
}

func many(n int) (changes []Change) {
	for i := range n {
		o := &object.Namespace{Name: fmt.Sprint("ns-", i)}
		changes = append(changes, Change{o.Kind(), o.Named(), o})
	}
	return changes
}

func open(t *testing.T, path string, log *bytes.Buffer) (*File, []object.Object) {
	t.Helper()
	handler := slog.DiscardHandler
	if log != nil {
		handler = slog.NewTextHandler(log, nil)
	}
	f, all, err := Open(path, slog.New(handler))
	must(t, err)
	return f, all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
