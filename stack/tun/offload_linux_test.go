package tun_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
)

// TestOffloads: what is turned off is off, and so is what it carries; a device has the same as the probe found.
func TestOffloads(t *testing.T) {
	n := newNamespace(t, "pod")
	uso := kernelTakesUDP(t)
	for _, tt := range []struct{ off, want tun.Offloads }{
		{tun.Offloads{}, tun.Offloads{Checksum: true, TSO: true, USO: uso}},
		{tun.Offloads{TSO: true}, tun.Offloads{Checksum: true, USO: uso}},
		{tun.Offloads{USO: true}, tun.Offloads{Checksum: true, TSO: true}},
		{tun.Offloads{Checksum: true}, tun.Offloads{}},
	} {
		must(t, n.Do(func() error {
			found, err := tun.Probe(tt.off)
			if err != nil {
				return err
			}
			d, err := tun.Open(tun.Config{Name: "eth0", MTU: mtu, Without: tt.off})
			if err != nil {
				return err
			}
			q := d.Queues()[0]
			if found != tt.want || d.Offloads() != tt.want {
				t.Errorf("without %+v: probe %+v, device %+v, want %+v", tt.off, found, d.Offloads(), tt.want)
			}
			if q.Takes(packet.GSOTCP4) != tt.want.TSO || q.Takes(packet.GSOTCP6) != tt.want.TSO || q.Takes(packet.GSOUDP) != tt.want.USO {
				t.Errorf("without %+v: super-packets taken: TCP %v, UDP %v", tt.off, q.Takes(packet.GSOTCP4), q.Takes(packet.GSOUDP))
			}
			return d.Close()
		}))
	}
	h, err := n.Netlink()
	must(t, err)
	links, err := h.LinkList()
	must(t, err)
	if len(links) != 1 {
		t.Errorf("%d interfaces are left beside lo", len(links)-1)
	}
}

// TestProbeErrors: a probe that cannot make a device says why, as opening one does.
func TestProbeErrors(t *testing.T) {
	_, err := tun.ProbeAt(filepath.Join(t.TempDir(), "tun"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestUnreadableFrames: a device that has to finish frames refuses those that it cannot read.
func TestUnreadableFrames(t *testing.T) {
	p := newPod(t, backends[2], 2)
	for _, frame := range [][]byte{
		{1, byte(packet.GSOTCP4), 0, 0, 0, 0, 0, 0, 0, 0},
		append([]byte{1, byte(packet.GSOTCP4), 0, 0, 0, 9, 0, 0, 0, 0}, make([]byte, 40)...),
	} {
		if err := p.queue.Write(frame, nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%x: got %v", frame, err)
		}
	}
}
