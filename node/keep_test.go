package node

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node/fdstore"
	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/packet"
)

// TestKeeper: the next daemon has the listeners that this one had, and none that was dropped or is of another version.
func TestKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	l, err := fdstore.Listen(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- fdstore.Serve(ctx, l, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	daemon := func() (*Node, *lines) {
		log := &lines{}
		n := &Node{config: Config{FDStore: path}, log: slog.New(slog.NewTextHandler(log, nil))}
		if err := n.openKeeper(t.Context()); err != nil {
			t.Fatal(err)
		}
		return n, log
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	at := func(addr string) proxy.Listener {
		return proxy.Listener{Addr: netip.MustParseAddrPort(addr), Proto: packet.TCP}
	}
	stays, goes := at("[fe80::1%eth0]:30080"), at("192.168.254.11:30081")
	silent := stays
	silent.Silent = true

	first, log := daemon()
	for _, l := range []proxy.Listener{silent, goes} {
		if err := first.keeper.Keep(l, socket); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"30080", `{"Addr":"192.168.254.11:30082","Proto":6,"Silent":false,"Here":false,"Own":false,"Mark":7}`} {
		if err := first.keeper.Client.Keep(name, socket); err != nil {
			t.Fatal(err)
		}
	}
	first.keeper.Drop(goes)
	first.keeper.Sync(t.Context())
	if len(first.heritage) > 0 || log.has("WARN") {
		t.Errorf("the first daemon has %v, and said %s", first.heritage, &log.text)
	}
	for round, warns := range []bool{true, false} {
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		first, log = daemon()
		if len(first.heritage) != 1 || first.heritage[0].Listener != stays {
			t.Errorf("round %d: the next daemon has %v, want %v", round, first.heritage, stays)
		}
		first.keeper.Sync(t.Context())
		if log.has("is of another version") != warns {
			t.Errorf("round %d: it said %s", round, &log.text)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
}
