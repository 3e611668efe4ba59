package cni

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/unixsock"
)

var fullRequest = request{
	Op: opAdd, Key: ipam.Key{ContainerID: "a", IfName: "eth0"}, Network: "middleway", Netns: "/run/netns/a",
	NetnsID: netns.ID{Dev: 4, Inode: 4026531840}, Pod: ipam.Pod{Namespace: "default", Name: "web", UID: "u"},
	IPs: []netip.Addr{netip.MustParseAddr("10.244.1.7")}, Index: 3, Valid: []ipam.Key{{ContainerID: "b", IfName: "eth1"}},
	PortMappings: []ipam.PortMapping{{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 8080, ContainerPort: 80, Protocol: ipam.TCP}},
}

func equalAddrs(a, b netip.Addr) bool { return a == b }

// socketPair returns two ends of a connection.
func socketPair(t testing.TB) (a, b conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return conn{c}, conn{d}
}

func TestSendReceive(t *testing.T) {
	a, b := socketPair(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	many := fullRequest
	for range 8000 { // more than a socket's buffer
		many.Valid = append(many.Valid, ipam.Key{ContainerID: strings.Repeat("c", 64), IfName: "eth0"})
	}
	fds := make([]int, unixsock.MaxFDs)
	for i := range fds {
		fds[i] = int(f.Fd())
	}
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(a.send(&fullRequest), a.send(&many, fds...), a.send(&response{Error: fail(100, "m", "d")}), a.Close())
	}()
	for i, want := range []struct {
		request
		fds int
	}{{fullRequest, 0}, {many, unixsock.MaxFDs}} {
		var got request
		fds, err := b.receive(&got)
		if err != nil || len(fds) != want.fds {
			t.Fatalf("message %d: %v, %d descriptors, want %d", i, err, len(fds), want.fds)
		}
		if diff := cmp.Diff(want.request, got, cmp.Comparer(equalAddrs)); diff != "" {
			t.Errorf("message %d (-want +got):\n%s", i, diff)
		}
		unixsock.Close(fds...)
	}
	var r response
	if _, err := b.receive(&r); err != nil || r.Error == nil || *r.Error != (types.Error{Code: 100, Msg: "m", Details: "d"}) {
		t.Errorf("%v, %+v", err, r.Error)
	}
	if _, err := b.receive(&r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// What is not a message is refused, and its descriptors are closed.
func TestReceiveRefuses(t *testing.T) {
	good, err := encode(&fullRequest)
	if err != nil {
		t.Fatal(err)
	}
	patch := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	for _, tt := range []struct {
		name  string
		bytes []byte
		words string
	}{
		{"other program", []byte("GET / HTTP/1.1\r\n\r\n"), "another program's"},
		{"other version", patch(3, 9), "different releases"},
		{"too long", patch(4, 0xff), "longer than"},
		{"header cut short", good[:5], "unexpected EOF"},
		{"body cut short", good[:len(good)-1], "unexpected EOF"},
		{"no JSON", patch(headerLen, 'x'), "decode message"},
		{"two objects", []byte("mwc\x01\x00\x00\x00\x04{}{}"), "something follows"},
		{"unknown field", []byte("mwc\x01\x00\x00\x00\x0c{\"color\": 1}"), "unknown field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketPair(t)
			before := countFiles(t)
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			rights := rightsOf(f)
			if _, _, err := a.WriteMsgUnix(tt.bytes, rights, nil); err != nil {
				t.Fatal(err)
			}
			f.Close()
			a.CloseWrite()
			fds, err := b.receive(&request{})
			if err == nil || !strings.Contains(err.Error(), tt.words) || len(fds) != 0 {
				t.Errorf("got %v and %d descriptors, want %q", err, len(fds), tt.words)
			}
			if after := countFiles(t); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

func FuzzReceive(f *testing.F) {
	for _, v := range []any{&fullRequest, &response{Error: fail(11, "m", "d")}, &response{grant: grant{Addrs: fullRequest.IPs, MTU: 1450, Queues: 2}}} {
		b, err := encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("mwc\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerLen {
			return
		}
		n, err := bodyLen(b[:headerLen])
		if err != nil || n > len(b)-headerLen {
			return
		}
		var r request
		if decode(b[headerLen:][:n], &r) == nil && r.check() == nil {
			again, err := encode(&r)
			if err != nil {
				t.Fatal(err)
			}
			var same request
			if err := decode(again[headerLen:], &same); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, same, cmp.Comparer(equalAddrs)); diff != "" {
				t.Error(diff)
			}
			if name := alias(r.ContainerID); len(name) > 255 && r.Op == opAdd {
				t.Errorf("the kernel refuses the alias %q", name)
			}
		}
		var a response
		_ = decode(b[headerLen:][:n], &a)
	})
}

func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
