package tun_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/tun"
)

func open(n *lab.Namespace, c tun.Config) (d *tun.Device, err error) {
	err = n.Do(func() (err error) {
		d, err = tun.Open(c)
		return err
	})
	return d, err
}

// index returns the number of an interface, 0 if there is none.
func index(t *testing.T, n *lab.Namespace, name string) int {
	t.Helper()
	h, err := n.Netlink()
	must(t, err)
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return 0
	}
	must(t, err)
	return link.Attrs().Index
}

func TestPersist(t *testing.T) {
	n := newNamespace(t, "pod")
	d, err := open(n, tun.Config{Name: "eth0", MTU: mtu, Queues: 2, Persist: true})
	must(t, err)
	first := index(t, n, "eth0")
	must(t, d.Close())
	must(t, d.Close())
	if got := index(t, n, "eth0"); got != first || first == 0 {
		t.Fatalf("after Close: got interface %d, want %d", got, first)
	}
	for _, queues := range []int{2, 1, 4} {
		if d, err = open(n, tun.Config{Name: "eth0", MTU: mtu, Queues: queues}); err != nil {
			t.Fatalf("%d queues: %v", queues, err)
		}
		if got := index(t, n, "eth0"); got != first || len(d.Queues()) != queues {
			t.Errorf("taken up: got interface %d with %d queues, want %d with %d", got, len(d.Queues()), first, queues)
		}
		if queues == 4 {
			must(t, d.SetPersist(false))
		}
		must(t, d.Close())
	}
	if got := index(t, n, "eth0"); got != 0 {
		t.Errorf("no longer persistent: got interface %d", got)
	}
	if err := d.SetPersist(true); !errors.Is(err, os.ErrClosed) {
		t.Errorf("SetPersist after Close: got %v, want %v", err, os.ErrClosed)
	}
	if d, err = open(n, tun.Config{Name: "eth0", MTU: mtu}); err != nil {
		t.Fatal(err)
	}
	must(t, d.Close())
	if got := index(t, n, "eth0"); got != 0 {
		t.Errorf("never persistent: got interface %d", got)
	}
}

// TestTakenUpCarries sends through a device that a former daemon left.
func TestTakenUpCarries(t *testing.T) {
	p := &pod{Namespace: newNamespace(t, "pod"), v4: netip.MustParseAddr("10.244.1.2")}
	for i := range 3 {
		d, err := open(p.Namespace, tun.Config{Name: "eth0", MTU: mtu, Queues: 1 + i, Persist: true})
		must(t, err)
		if i == 0 {
			setMTU(t, p.Namespace, "eth0")
			must(t, p.AddAddr("eth0", netip.PrefixFrom(p.v4, 32)))
			must(t, p.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, "eth0"))
		}
		c := dialUDP(t, p, netip.MustParseAddrPort("10.244.2.3:53"))
		_, err = c.Write([]byte("question"))
		must(t, err)
		sizes, bufs := make([]int, 1), [][]byte{make([]byte, 2000)}
		if n, err := d.Read(bufs, sizes, 0); err != nil || n != 1 || string(payloadOf(t, bufs[0][:sizes[0]])) != "question" {
			t.Errorf("opened %d times: got %d, %v", i+1, n, err)
		}
		must(t, d.Close())
	}
}

func TestOpenErrors(t *testing.T) {
	n := newNamespace(t, "pod")
	const other = "lo" // a device there always is
	text := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(text, nil, 0o600))
	plain := tun.Config{Name: "eth0", MTU: mtu}
	for _, b := range backends {
		for _, tt := range []struct {
			name   string
			config tun.Config
			before func() error // on the thread that opens; it ends with it
			want   []string
			is     error
		}{
			{"no name", tun.Config{}, nil, []string{`""`, "not an interface name"}, nil},
			{"a pattern as name", tun.Config{Name: "eth%d"}, nil, []string{`"eth%d"`, "not an interface name"}, nil},
			{"a name of 16 bytes", tun.Config{Name: "sixteen-bytes-xx"}, nil, []string{"sixteen-bytes-xx", "1 to 15 bytes"}, nil},
			{"too many queues", tun.Config{Name: "eth0", Queues: 257}, nil, []string{"eth0", "257", "256"}, nil},
			{"name taken", tun.Config{Name: other}, nil, []string{other, "not a tun device of this kind", "choose another name"}, unix.EINVAL},
			{"device file missing", plain.WithClonePath(text + "-missing"), nil, []string{text + "-missing", "does not exist", "modprobe tun", "mknod"}, os.ErrNotExist},
			{"not a device file", plain.WithClonePath(text), nil, []string{"eth0"}, unix.ENOTTY},
			{"another user", plain, asNobody, []string{"/dev/net/tun", "uid 65534", "chmod"}, os.ErrPermission},
			{"no capability", plain, withoutCapabilities, []string{"eth0", "CAP_NET_ADMIN", "user namespace"}, unix.EPERM},
		} {
			t.Run(b.name+", "+tt.name, func(t *testing.T) {
				before := countFDs(t)
				err := n.Do(func() error {
					if tt.before != nil {
						if err := tt.before(); err != nil {
							return err
						}
					}
					_, c, err := b.open(tt.config)
					if err == nil {
						_ = c.Close()
					}
					return err
				})
				if skip := new(skipError); errors.As(err, &skip) {
					t.Skip(skip)
				}
				if err == nil {
					t.Fatal("opened")
				}
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("got %v, want %v in it", err, tt.is)
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %q, want it to say %q", err, want)
					}
				}
				if after := countFDs(t); after > before {
					t.Errorf("%d descriptors are left open", after-before)
				}
				if index(t, n, "eth0") != 0 {
					t.Error("an interface is left")
				}
			})
		}
	}
}

type skipError struct{ error }

// asNobody makes the calling thread another user. The thread is thrown away afterwards.
func asNobody() error {
	fi, err := os.Stat("/dev/net/tun")
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o006 == 0o006 {
		return &skipError{errors.New("everybody may open /dev/net/tun here")}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
		return &skipError{fmt.Errorf("become uid 65534: %w", errno)}
	}
	return nil
}

// withoutCapabilities takes the capabilities from the calling thread.
func withoutCapabilities() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&h, &none[0])
}

func countFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// TestSecondOpener: the kernel would share a device's packets among all who open it.
func TestSecondOpener(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			p := newPod(t, b, 2)
			_, c, err := openSecond(p, b)
			if err == nil {
				_ = c.Close()
				t.Fatal("opened a second time")
			}
			if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), `"eth0"`) {
				t.Errorf("got %v", err)
			}
			// The first opener goes on.
			conn := dialUDP(t, p, netip.MustParseAddrPort("10.244.2.3:53"))
			for range 20 {
				_, err = conn.Write([]byte("question"))
				must(t, err)
				if segs, _ := nextPackets(t, p.queue, 1); string(payloadOf(t, segs[0][packet.VnetLen:])) != "question" {
					t.Error("lost")
				}
			}
		})
	}
}

func openSecond(p *pod, b backend) (q queue, c io.Closer, err error) {
	err = p.Do(func() (err error) {
		q, c, err = b.open(tun.Config{Name: "eth0", MTU: mtu})
		return err
	})
	return q, c, err
}

// TestKindsDoNotMix: a device left by the portable back end has one queue and other flags.
func TestKindsDoNotMix(t *testing.T) {
	kinds := []backend{backends[0], backends[len(backends)-1]}
	for i, b := range kinds {
		n := newNamespace(t, "pod")
		must(t, n.Do(func() error {
			_, c, err := b.open(tun.Config{Name: "eth0", MTU: mtu, Persist: true})
			if err != nil {
				return err
			}
			return c.Close()
		}))
		err := n.Do(func() error {
			_, _, err := kinds[1-i].open(tun.Config{Name: "eth0", MTU: mtu})
			return err
		})
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "not a tun device of this kind") {
			t.Errorf("left by %s: got %v", b.name, err)
		}
	}
}

// The plain face.

func openFace(t *testing.T) (*pod, *tun.Device) {
	t.Helper()
	var d *tun.Device
	p := newPod(t, backend{"face", func(c tun.Config) (queue, io.Closer, error) {
		c.Queues = 2
		opened, err := tun.Open(c)
		if err != nil {
			return nil, nil, err
		}
		d = opened
		return opened.Queues()[0], opened, nil
	}}, 2)
	return p, d
}

// bufs returns buffers for a plain Read.
func bufs(count, size int) ([][]byte, []int) {
	b := make([][]byte, count)
	for i := range b {
		b[i] = make([]byte, size)
	}
	return b, make([]int, count)
}

func TestFaceRead(t *testing.T) {
	p, d := openFace(t)
	var plain wgtun.Device = d
	const offset = 16
	c := dialUDP(t, p, netip.MustParseAddrPort("10.244.2.3:53"))
	payload := pattern(5300)
	t.Run("splits", func(t *testing.T) {
		setUDP(t, c, unix.UDP_SEGMENT, 1000)
		_, err := c.Write(payload)
		must(t, err)
		b, sizes := bufs(plain.BatchSize(), offset+mtu)
		var got []byte
		for packets := 0; packets < 6; {
			n, err := plain.Read(b[:4], sizes, offset) // fewer than there are
			must(t, err)
			for i := range n {
				got = append(got, payloadOf(t, b[i][offset:][:sizes[i]])...)
			}
			packets += n
		}
		if !bytes.Equal(got, payload) {
			t.Errorf("got %d bytes, want %d", len(got), len(payload))
		}
		setUDP(t, c, unix.UDP_SEGMENT, 0)
	})
	t.Run("a single packet", func(t *testing.T) {
		_, err := c.Write(payload[:700])
		must(t, err)
		b, sizes := bufs(2, offset+mtu)
		if n, err := plain.Read(b, sizes, offset); err != nil || n != 1 || !bytes.Equal(payloadOf(t, b[0][offset:][:sizes[0]]), payload[:700]) {
			t.Errorf("got %d, %v", n, err)
		}
	})
	t.Run("too small a buffer loses the packet and goes on", func(t *testing.T) {
		for _, segment := range []int{0, 700} {
			setUDP(t, c, unix.UDP_SEGMENT, segment)
			_, err := c.Write(payload[:1400])
			must(t, err)
			setUDP(t, c, unix.UDP_SEGMENT, 0)
			_, err = c.Write([]byte("next"))
			must(t, err)
			for _, size := range []int{offset - 1, offset + 727} { // the segments' 728 bytes do not fit
				b, sizes := bufs(4, size)
				n, err := plain.Read(b, sizes, offset)
				if size > offset && err == nil && n == 1 && string(payloadOf(t, b[0][offset:][:sizes[0]])) == "next" {
					break
				}
				if !errors.Is(err, io.ErrShortBuffer) || n != 0 {
					t.Fatalf("segment %d, buffer %d: got %d, %v, want %v", segment, size, n, err, io.ErrShortBuffer)
				}
			}
		}
	})
	t.Run("a short segment fits a short buffer", func(t *testing.T) {
		// The segment's size says nothing about a super-packet's last, or only, segment.
		if !kernelTakesUDP(t) {
			t.Skip("this kernel's TUN devices have no super-packets of datagrams")
		}
		setUDP(t, c, unix.UDP_SEGMENT, 1000)
		defer setUDP(t, c, unix.UDP_SEGMENT, 0)
		_, err := c.Write(payload[:1100])
		must(t, err)
		b, sizes := bufs(2, offset+mtu)
		b[1] = b[1][:offset+128]
		if n, err := plain.Read(b, sizes, offset); err != nil || n != 2 || sizes[1] != 128 {
			t.Errorf("got %d, %v, sizes %v", n, err, sizes)
		}
	})
}

func TestFaceWrite(t *testing.T) {
	p, d := openFace(t)
	l := listenUDP(t, p, p.v4, 53)
	src, dst := netip.MustParseAddrPort("10.244.2.3:4000"), netip.AddrPortFrom(p.v4, 53)
	const offset = packet.VnetLen
	var out [][]byte
	for i := range 3 {
		out = append(out, append(make([]byte, offset), udpPacket(src, dst, []byte{byte(i)}, false)...))
	}
	if n, err := d.Write(out, offset); err != nil || n != 3 {
		t.Fatalf("got %d, %v, want 3", n, err)
	}
	for i := range 3 {
		var b [10]byte
		must(t, l.SetReadDeadline(time.Now().Add(2*time.Second)))
		if n, _, err := l.ReadFrom(b[:]); err != nil || n != 1 || b[0] != byte(i) {
			t.Errorf("datagram %d: got % x, %v", i, b[:n], err)
		}
	}
	if _, err := d.Write(out, offset-1); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("no room for the header: got %v", err)
	}
	if n, err := d.Write([][]byte{out[0], make([]byte, offset)}, offset); err == nil || n != 1 {
		t.Errorf("an empty packet: got %d, %v, want 1 and an error", n, err)
	}
}

func TestFaceClose(t *testing.T) {
	p, d := openFace(t)
	if name, err := d.Name(); err != nil || name != "eth0" {
		t.Errorf("got name %q, %v", name, err)
	}
	if got, err := d.MTU(); err != nil || got != mtu {
		t.Errorf("got MTU %d, %v", got, err)
	}
	f := d.File()
	if f == nil {
		t.Fatal("no file")
	}
	must(t, f.Close())
	events := d.Events()
	if e := <-events; e != wgtun.EventUp {
		t.Errorf("got event %v, want up", e)
	}
	ended := make(chan error)
	go func() {
		b, sizes := bufs(1, 2000)
		_, err := d.Read(b, sizes, 0)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond) // it should block, which nothing can tell
	must(t, d.Close())
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v, want %v", err, os.ErrClosed)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Read does not end")
	}
	if _, open := <-events; open {
		t.Error("events: not closed")
	}
	b, sizes := bufs(1, 2000)
	if _, err := d.Read(b, sizes, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: got %v, want %v", err, os.ErrClosed)
	}
	if _, err := d.Write(b, 100); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: got %v, want %v", err, os.ErrClosed)
	}
	if d.File() != nil {
		t.Error("File after Close: there is one")
	}
	must(t, d.Close())
	if index(t, p.Namespace, "eth0") != 0 {
		t.Error("the interface is still there")
	}
}

// TestFaceCloseConcurrent closes while packets come and go. Run it with -race.
func TestFaceCloseConcurrent(t *testing.T) {
	for range 20 {
		p, d := openFace(t)
		done := make(chan struct{}, 2)
		go func() {
			b, sizes := bufs(8, 2000)
			for {
				if _, err := d.Read(b, sizes, 0); errors.Is(err, os.ErrClosed) {
					break
				}
			}
			done <- struct{}{}
		}()
		go func() {
			b := append(make([]byte, packet.VnetLen), udpPacket(netip.MustParseAddrPort("10.244.2.3:4000"), netip.AddrPortFrom(p.v4, 53), []byte("x"), false)...)
			for {
				if _, err := d.Write([][]byte{b}, packet.VnetLen); errors.Is(err, os.ErrClosed) {
					break
				}
			}
			done <- struct{}{}
		}()
		time.Sleep(time.Millisecond)
		must(t, d.Close())
		<-done
		<-done
	}
}

// TestInterfaceGonePortable removes the interface under an open device of the portable back end.
func TestInterfaceGonePortable(t *testing.T) {
	p, err := lab.NewNamespace("pod")
	must(t, err)
	t.Cleanup(func() { p.Close() })
	var d *tun.Portable
	must(t, p.Do(func() (err error) {
		d, err = tun.OpenPortable(tun.Config{Name: "eth0", MTU: 1450})
		return err
	}))
	t.Cleanup(func() { d.Close() })
	h, err := p.Netlink()
	must(t, err)
	link, err := h.LinkByName("eth0")
	must(t, err)
	must(t, h.LinkDel(link))
	if !readable(d.FD(), 0) {
		t.Error("nobody is told")
	}
	for range 2 {
		if _, err := d.Read(make([]byte, 1<<16)); !errors.Is(err, unix.EBADFD) {
			t.Errorf("Read: got %v, want EBADFD", err)
		}
	}
}

// TestInterfaceGone removes the interface under an open device.
func TestInterfaceGone(t *testing.T) {
	p, d := openFace(t)
	h, err := p.Netlink()
	must(t, err)
	link, err := h.LinkByName("eth0")
	must(t, err)
	must(t, h.LinkDel(link))
	b, sizes := bufs(1, 2000)
	if _, err := d.Read(b, sizes, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: got %v, want %v", err, os.ErrClosed)
	}
	q := d.Queues()[0]
	if !readable(q.FD(), 0) {
		t.Error("nobody is told")
	}
	if _, err := q.Read(b[0]); !errors.Is(err, unix.EBADFD) {
		t.Errorf("Queue.Read: got %v, want EBADFD", err)
	}
	if err := q.Write(b[0], nil); !errors.Is(err, unix.EBADFD) {
		t.Errorf("Queue.Write: got %v, want EBADFD", err)
	}
}
