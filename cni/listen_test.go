package cni

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/cni/ipam"
)

// another tries to start a second daemon with a socket.
func another(t *testing.T, socket string) error {
	t.Helper()
	leases, err := ipam.Open(ipam.Config{Path: filepath.Join(t.TempDir(), "leases.db"), CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	defer leases.Close()
	s, err := New(Config{Socket: socket, Leases: leases, Node: &fakeNode{has: map[string]bool{}}})
	if err == nil {
		s.Close()
	}
	return err
}

func wantRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was let in, instead of an error with %q", words)
	}
	t.Log(err)
	for _, w := range append(words, "cni.socket", "end it") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

// Only one daemon has a socket, and the tombstones beside it.
func TestSocketTaken(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	wantRefused(t, another(t, d.socket()), d.dir, "another directory")
	wantRefused(t, another(t, filepath.Join(d.dir, "other.sock")), d.dir, "another directory")
	wantRefused(t, Cleanup(nil, d.socket()), d.dir)
	d.mustAdd("a")
	d.stop()
	if err := another(t, d.socket()); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
}

// Somebody who knows no locks answers.
func TestSocketAnswered(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, another(t, socket), socket, "answers")
	mustLie(t, filepath.Dir(socket), "cni.sock")
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := another(t, socket); err != nil {
		t.Errorf("after it has gone: %v", err)
	}

	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	wantRefused(t, another(t, socket), socket)
}

// Close leaves a socket that somebody else has put in the place of ours.
func TestCloseLeavesOthersSocket(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	if err := os.Remove(d.socket()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", d.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d.stop()
	if _, err := os.Lstat(d.socket()); err != nil {
		t.Errorf("it was removed: %v", err)
	}
}

// Cleanup removes what is ours of a directory.
func TestCleanupLeavesOthers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cni.sock")
	if err := bury(socket, keyOf("a")); err != nil {
		t.Fatal(err)
	}
	dir := tombstoneDir(socket)
	write(t, filepath.Join(dir, ".new-1"), "")
	others := spoil(t, dir)
	for range 2 {
		if err := Cleanup(nil, socket); err != nil {
			t.Fatal(err)
		}
		mustLie(t, dir, others...)
	}
	if b, err := os.ReadFile(filepath.Join(dir, tombstoneName(keyOf("dir")), "inside")); err != nil || string(b) != "somebody's" {
		t.Errorf("%s, %v", b, err)
	}

	socket = filepath.Join(t.TempDir(), "cni.sock")
	if err := bury(socket, keyOf("a")); err != nil {
		t.Fatal(err)
	}
	if err := Cleanup(nil, socket); err != nil {
		t.Fatal(err)
	}
	mustLie(t, filepath.Dir(socket))

	write(t, socket, "a file")
	if err := Cleanup(nil, socket); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("got %v", err)
	}
	mustLie(t, filepath.Dir(socket), "cni.sock")
}
