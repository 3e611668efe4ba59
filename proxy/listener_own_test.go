package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/middleway-net/middleway/stack/packet"
)

// freePort returns an address of the machine's that nobody listens at.
func freePort(t *testing.T, a netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestOwnListener: the node itself serves who connects to one of its own, until it is not wanted any more; then another one may have the
// port, also one that leads to pods.
func TestOwnListener(t *testing.T) {
	for _, a := range []netip.Addr{local, local6} {
		var ended atomic.Int32
		n := start(t, Config{Serve: func(l net.Listener) {
			s := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "asked at "+r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
			})}
			_ = s.Serve(l)
			_ = s.Close()
			ended.Add(1)
		}})
		at := freePort(t, a)
		own := Listener{Addr: at, Proto: packet.TCP, Own: true}
		n.SetListeners(map[Listener]string{own: "default/web"})
		get := func() (string, error) {
			r, err := http.Get("http://" + at.String())
			if err != nil {
				return "", err
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			return string(b), err
		}
		eventually(t, "the node answers", func() bool { got, _ := get(); return got == "asked at "+at.String() })
		eventually(t, "the client is counted", func() bool { return n.Stats().TCP.Open == 1 }) // it has kept its connection
		n.SetListeners(nil)
		eventually(t, "its connection ends with the listener", func() bool { return ended.Load() == 1 && n.Stats().TCP.Open == 0 })
		if _, err := get(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after its end: got %v, want %v", err, syscall.ECONNREFUSED)
		}
		n.SetListeners(map[Listener]string{own: "default/web"})
		eventually(t, "it is back", func() bool { _, err := get(); return err == nil })
		n.SetListeners(map[Listener]string{{Addr: at, Proto: packet.TCP}: "default/web:http"})
		eventually(t, "a listener of pods has the port", func() bool {
			if ended.Load() < 2 {
				return false
			}
			c, err := net.Dial("tcp", at.String())
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
		if _, h := nextSYN(t, n.own); h.Flow.DstPort() != at.Port() {
			t.Errorf("a pod is asked at %v, want port %d", h.Flow, at.Port())
		}
	}
}

// TestOwnListenerRoom: clients of the node itself have no more room than others.
func TestOwnListenerRoom(t *testing.T) {
	accepted := make(chan net.Conn, 10)
	n := start(t, Config{MaxConns: 4, Serve: func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}})
	at := freePort(t, local)
	n.SetListeners(map[Listener]string{{Addr: at, Proto: packet.TCP, Own: true}: "default/web"})
	eventually(t, "it is open", func() bool { return n.Stats().Listeners == 1 })
	for range 2 { // half of the room, as it is the only client
		dialTCP(t, 1, at)
	}
	first, second := <-accepted, <-accepted
	t.Cleanup(func() { _ = second.Close() }) // the proxy waits for it
	expectNoRoom(t, 1, at)
	for range 2 { // the second time changes nothing
		_ = first.Close()
	}
	if got := n.Stats().TCP; got.Open != 1 || got.Limited != 1 {
		t.Errorf("got %+v, want one open and one limited", got)
	}
	dialTCP(t, 1, at)
	_ = (<-accepted).Close()
}

// TestOwnListenerErrors: what nobody serves is not opened.
func TestOwnListenerErrors(t *testing.T) {
	serves := Config{Serve: func(net.Listener) {}}
	for _, tt := range []struct {
		name   string
		config Config
		l      Listener
	}{
		{"nothing is served", Config{}, Listener{Proto: packet.TCP, Own: true}},
		{"over UDP", serves, Listener{Proto: packet.UDP, Own: true}},
		{"silent", serves, Listener{Proto: packet.TCP, Own: true, Silent: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, tt.config)
			tt.l.Addr = freePort(t, local)
			if _, err := n.open(tt.l); err == nil || !strings.Contains(err.Error(), "nothing of the node's own is served there") {
				t.Errorf("got %v", err)
			}
		})
	}
}
