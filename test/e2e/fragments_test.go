package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// Large datagrams and pings over a link on which their fragments overtake each other.
func TestFragmentsReordered(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}, Underlay: lab.UnderlayConfig{Faults: lab.Faults{Seed: 5, Reorder: 0.3}}})
	near, far := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	for _, dst := range []netip.Addr{far.Addr4, far.Addr6} {
		for range 10 {
			echoUDP(t, near.Namespace, far.Namespace, dst, []int{3000, 8000, 60000})
			mustPing(t, near.Namespace, dst, 8000)
		}
	}
	if c := cl.Underlay.Link().Counters(0, 1); c.Reordered == 0 {
		t.Errorf("nothing was reordered: %+v", c)
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

// A pod sends the fragments of datagrams of 60,000 bytes in any order, and its receiver's kernel puts them together.
func TestFragmentsInAnyOrder(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Workers: 4})
	from := cl.Nodes[0].Pods[0]
	fd := packetSocket(t, from.Namespace, 0)
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	orders := map[string]func(b [][]byte){
		"first at the end": func(b [][]byte) { b[0], b[len(b)-1] = b[len(b)-1], b[0] },
		"random": func(b [][]byte) {
			random.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		},
	}
	mtu := mustStatus(t, cl.Nodes[0]).MTU
	id := uint32(1)
	for _, to := range []*lab.Pod{cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]} {
		for _, f := range []flow{{from.Addr4, to.Addr4}, {from.Addr6, to.Addr6}} {
			for name, order := range orders {
				t.Run(fmt.Sprintf("%s, %v", name, f.dst), func(t *testing.T) {
					server, err := to.ListenPacket("udp", netip.AddrPortFrom(f.dst, 9).String())
					if err != nil {
						t.Fatal(err)
					}
					defer server.Close()
					for range 20 {
						b := packettest.Packet{Src: f.src, Dst: f.dst, SrcPort: 4000, DstPort: 9, Payload: make([]byte, 60000)}
						fill(random, b.Payload)
						for again := 0; ; again++ { // fragments wait a second, in which a busy machine may stand still
							id++
							b.ID = uint16(id)
							pieces := packettest.Fragments(b.Frame()[packet.VnetLen:], mtu, id)
							order(pieces)
							for _, piece := range pieces {
								if _, err := unix.Write(fd, piece); err != nil {
									t.Fatal(err)
								}
							}
							if received(t, server, b.Payload) {
								break
							}
							if again == 3 {
								t.Fatal("a datagram did not come, four times")
							}
						}
					}
				})
			}
		}
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"]+d["fragment-timeout"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

// received reports whether a datagram comes, which has to be as it was sent.
func received(t *testing.T, c net.PacketConn, want []byte) bool {
	t.Helper()
	got := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, _, err := c.ReadFrom(got)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Fatalf("%d bytes came that are not what was sent, %v", n, err)
	}
	return true
}
