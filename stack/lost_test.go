package stack

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// The device of a pod is removed by somebody: packets to it are those to nobody, others go on, and its number and addresses are
// free after Detach.
func TestLost(t *testing.T) {
	d := newBed(t, 2)
	d.run(t)
	if d.Lost(d.idA) || d.Lost(99) {
		t.Error("an attachment with a device, and none, are not lost")
	}
	d.a.Remove()
	eventually(t, "the attachment is lost", func() bool { return d.Lost(d.idA) })
	if st := d.Stats(); st.Attachments != 1 || !slices.Equal(st.Lost, []string{"a"}) {
		t.Errorf("%d attachments, lost %v; want 1 and a", st.Attachments, st.Lost)
	}
	d.b.Inject(0, packettest.Packet{Src: podB, Dst: podA}.Frame())
	if got := d.outcome(t); got.where != "no-pod" {
		t.Errorf("a packet to the lost pod: %s, want no-pod", got.where)
	}
	d.b.Inject(0, packettest.Packet{Src: podB, Dst: farPod}.Frame())
	if got := d.outcome(t); got.where != "peer 192.168.254.12" {
		t.Errorf("a packet to a far pod: %s", got.where)
	}
	third := device(t, 2)
	id := d.attach(t, "c", third, netip.MustParseAddr("10.244.1.4"))
	if id == d.idA {
		t.Errorf("another attachment got the number %d, which the lost one has until it is detached", id)
	}
	again := device(t, 2)
	d.attach(t, "a again", again, podA)
	d.b.Inject(0, packettest.Packet{Src: podB, Dst: podA}.Frame())
	eventually(t, "the pod's new device gets the packet", func() bool { return len(again.Written()) == 1 })
	if err := d.Detach(d.idA); err != nil {
		t.Error(err)
	}
	if d.Lost(d.idA) || len(d.Stats().Lost) > 0 {
		t.Error("it is lost, though it was detached")
	}
	if err := d.Detach(d.idA); err == nil {
		t.Error("it was detached twice")
	}
}

// So is the host's, which can be attached anew.
func TestLostHost(t *testing.T) {
	d := newHostBed(t, 1)
	d.run(t)
	d.host.Remove()
	eventually(t, "the host is lost", func() bool { return d.Lost(d.idHost) })
	if got := d.Stats().Lost; len(got) > 0 {
		t.Errorf("lost pods: %v, want none", got)
	}
	d.a.Inject(0, packettest.Packet{Src: podA, Dst: hostNode}.Frame())
	if got := d.outcome(t); got.where != "no-route" {
		t.Errorf("a packet to the host: %s, want no-route", got.where)
	}
	former := d.idHost
	d.host = device(t, 1)
	id, err := d.Attach(d.hostAttachment())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Detach(former); err != nil {
		t.Error(err)
	}
	for range 2 {
		d.a.Inject(0, packettest.Packet{Src: podA, Dst: hostNode}.Frame())
		if got := d.outcome(t); got.where != "host" {
			t.Errorf("a packet to the host, attached anew: %s", got.where)
		}
	}
	if d.Lost(id) {
		t.Error("the new one is lost")
	}
}

// A device that is lost before anybody looks after the attachments, and one that was detached in between, are no harm.
func TestLostAndDetached(t *testing.T) {
	d := newBed(t, 1)
	att := d.tables.Load().attachments[d.idA]
	if err := d.Detach(d.idA); err != nil {
		t.Fatal(err)
	}
	id := d.attach(t, "other", device(t, 1), podA)
	d.lose(att)
	if d.Lost(id) {
		t.Error("an attachment that has the number of one that was lost is lost too")
	}
	if diff := cmp.Diff([]string{}, d.Stats().Lost); diff != "" {
		t.Error(diff)
	}
}

// Who wants to know is told the addresses of pods that are gone, once, and none of the host's.
func TestVacated(t *testing.T) {
	vacated := make(chan []netip.Addr, 8)
	d := newHostBed(t, 2, func(c *Config) { c.Vacated = func(addrs []netip.Addr) { vacated <- addrs } })
	d.run(t)
	d.host.Remove()
	eventually(t, "the host is lost", func() bool { return d.Lost(d.idHost) })
	d.a.Remove()
	if got := <-vacated; !slices.Contains(got, podA) {
		t.Errorf("the lost pod: told %v, want %v among them", got, podA)
	}
	for id := range uint32(3) { // a, b and the host
		if err := d.Detach(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-vacated; !slices.Contains(got, podB) || len(vacated) > 0 {
		t.Errorf("the detached pod: told %v and %d others, want %v among them", got, len(vacated), podB)
	}
}
