package flow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

func open(t testing.TB, path string, entries int) *Table {
	t.Helper()
	table, err := Open(path, entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func closed(t testing.TB, table *Table) {
	t.Helper()
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	table := open(t, path, 8192) // so large that no bucket overflows, whatever the seed
	g := table.NextGeneration()
	seed := table.Seed()
	var flows []packet.Flow
	for i := range 100 {
		f := numbered(packet.TCP, i)
		create(table, f, toPod, toPeer, g)
		flows = append(flows, f)
	}
	kept := table.Len()
	closed(t, table)

	table = open(t, path, 8000) // rounds up to the same
	defer closed(t, table)
	if table.Restored() != kept || table.Len() != kept || table.Seed() != seed || table.Evicted() != 0 {
		t.Errorf("got %d restored, %v, want %d", table.Restored(), table, kept)
	}
	for _, f := range flows {
		there, ok := table.Lookup(f)
		back, ok2 := table.Lookup(f.Reverse())
		if !ok || !ok2 || there.Verdict != toPod || back.Verdict != toPeer || there.Generation != g {
			t.Fatalf("%v: got %+v %v, %+v %v", f, there, ok, back, ok2)
		}
		if table.twinOf(there.ref) != &table.entries[back.ref] {
			t.Fatalf("%v: its directions do not know each other", f)
		}
	}
	if next := table.NextGeneration(); next <= g {
		t.Errorf("generation: got %d after %d", next, g)
	}
}

func TestGenerationGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	last := uint32(0)
	for range 5 {
		table := open(t, path, 512)
		for range 3 {
			g := table.NextGeneration()
			if g <= last {
				t.Fatalf("got %d after %d", g, last)
			}
			last = g
		}
		closed(t, table)
	}
	// An entry of a generation that the header does not know: the header lags behind, the generations must not.
	table := open(t, path, 512)
	create(table, numbered(packet.UDP, 1), toPod, toNode, 500)
	closed(t, table)
	table = open(t, path, 512)
	defer closed(t, table)
	if g := table.NextGeneration(); g != 501 {
		t.Errorf("got %d, want 501", g)
	}
}

// image returns the bytes of a table's file that holds n flows.
func image(t testing.TB, entries, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flows")
	table := open(t, path, entries)
	for i := range n {
		create(table, numbered(packet.TCP, i), toPod, toPeer, 1)
	}
	closed(t, table)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplaced opens files that are not this table's: they give way to an empty one.
func TestReplaced(t *testing.T) {
	good := image(t, 512, 10)
	at := func(offset uintptr, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[offset:], v); return b }
	}
	var h header
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		want int // directions found
	}{
		{"as it was", func(b []byte) []byte { return b }, 20},
		{"empty", func([]byte) []byte { return nil }, 0},
		{"cut in the header", func(b []byte) []byte { return b[:headerSize-1] }, 0},
		{"nothing but the header", func(b []byte) []byte { return b[:headerSize] }, 0},
		{"garbage", func([]byte) []byte { return bytes.Repeat([]byte("garbage"), 20_000) }, 0},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }, 0},
		{"another magic", at(unsafe.Offsetof(h.magic), 'x'), 0},
		{"another layout", at(unsafe.Offsetof(h.layout), layoutVersion+1), 0},
		{"another size of an entry", at(unsafe.Offsetof(h.entrySize), 64), 0},
		{"another number of entries", at(unsafe.Offsetof(h.entries), 0, 4), 0},
		{"another boot", at(unsafe.Offsetof(h.bootID), 'x'), 0},
		{"longer than it should be", func(b []byte) []byte { return append(b, make([]byte, 9999)...) }, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "flows")
			if err := os.WriteFile(path, tt.edit(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			table := open(t, path, 512)
			if table.Restored() != tt.want || table.Len() != tt.want {
				t.Errorf("got %d restored, %v, want %d", table.Restored(), table, tt.want)
			}
			if fi, err := os.Stat(path); err != nil || fi.Size() != int64(len(good)) || fi.Mode() != 0o600 {
				t.Errorf("file: got %v, %v", fi, err)
			}
			create(table, numbered(packet.UDP, 99), toPod, toNode, 1)
			closed(t, table)
			table = open(t, path, 512)
			defer closed(t, table)
			if table.Restored() != tt.want+2 {
				t.Errorf("reopened: got %d restored, want %d", table.Restored(), tt.want+2)
			}
		})
	}
	t.Run("cut in the entries", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "flows")
		if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		table := open(t, path, 512)
		defer closed(t, table)
		if n := table.Restored(); n == 0 || n >= 20 {
			t.Errorf("got %d restored, want some of 20", n)
		}
	})
	t.Run("another size asked for", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "flows")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		table := open(t, path, 1024)
		defer closed(t, table)
		if table.Restored() != 0 || len(table.entries) != 1024 {
			t.Errorf("got %d restored of %d", table.Restored(), len(table.entries))
		}
	})
}

// TestTorn opens a file with entries that no table has finished, or written.
func TestTorn(t *testing.T) {
	good := image(t, 512, 1)
	f := numbered(packet.TCP, 0)
	var e entry
	field := func(offset uintptr, v uint32) func(b []byte) {
		return func(b []byte) { binary.NativeEndian.PutUint32(b[offset:], v) }
	}
	now := bootClock()()
	var elsewhere packet.Flow // has another bucket than f
	for _, tt := range []struct {
		name string
		edit func(entry []byte)
		kept bool
	}{
		{"torn", func(b []byte) { b[unsafe.Offsetof(e.version)] |= 1 }, false},
		{"of a verdict that does not exist", func(b []byte) { b[unsafe.Offsetof(e.action)] = 17 }, false},
		{"where it is not looked for", func(b []byte) { *(*packet.Flow)(unsafe.Pointer(&b[unsafe.Offsetof(e.flow)])) = elsewhere }, false},
		{"with a twin beyond the table", field(unsafe.Offsetof(e.twin), 1<<31), true},
		{"with a foreign twin", field(unsafe.Offsetof(e.twin), 3), true},
		{"seen in the future", field(unsafe.Offsetof(e.seen), now+100_000), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(good)
			path := filepath.Join(t.TempDir(), "flows")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			table := open(t, path, 512)
			ref, _ := table.find(f)
			for i := 1; table.bucket(table.hash(elsewhere)) == table.bucket(table.hash(f)) || i == 1; i++ {
				elsewhere = numbered(packet.TCP, i)
			}
			closed(t, table)
			mine := b[headerSize+int(ref)*entrySize:][:entrySize]
			version := binary.NativeEndian.Uint32(mine)
			tt.edit(mine)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			table = open(t, path, 512)
			defer closed(t, table)
			if got := table.has(f); got != tt.kept {
				t.Errorf("kept: got %v, want %v", got, tt.kept)
			}
			want := 1
			if tt.kept {
				want = 2
			}
			if table.Restored() != want || table.Len() != want {
				t.Errorf("got %d restored, %v, want %d", table.Restored(), table, want)
			}
			if v := table.entries[ref].version.Load(); v&1 != 0 || v < version {
				t.Errorf("version: got %d after %d", v, version)
			}
			table.sweep()
			if c := create(table, f, toPod, toPeer, 2); c.Flow != f || table.Len() != 2 {
				t.Errorf("created again: got %+v, %v", c, table)
			}
			if tt.name == "seen in the future" {
				_, clock := withClock(table)
				clock.second = now + 70
				if table.sweep(); table.has(f) {
					t.Error("lives longer than it should")
				}
			}
		})
	}
}

// victimVar makes the test binary a daemon that is killed: it holds the file named by it.
const victimVar = "MIDDLEWAY_FLOW_VICTIM"

// victim writes to the table until it is killed.
func victim(path string) {
	table, err := Open(path, 2048)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		c := create(table, numbered(packet.TCP, i%100_000), toPod, toPeer, table.NextGeneration())
		table.Rejudge(&c, toNode, table.NextGeneration())
		if i == 10_000 {
			fmt.Println("ready")
		}
	}
}

// TestKilled kills a process in the middle of its writes, several times over one file.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows")
	last := uint32(0)
	for range 8 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), victimVar+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 100)
		if n, _ := out.Read(line); string(line[:n]) != "ready\n" {
			t.Errorf("got %q", line[:n])
		}
		if _, err := Open(path, 2048); !errors.Is(err, ErrInUse) {
			t.Errorf("while it runs: got %v, want %v", err, ErrInUse)
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()

		table := open(t, path, 2048)
		if table.Restored() < 1000 || table.Restored() != table.Len() {
			t.Errorf("got %d restored, %v", table.Restored(), table)
		}
		table.buckets(func(b uint32) {
			for i := range table.slots(b) {
				e := &table.slots(b)[i]
				if v := e.verdict(); e.version.Load()&1 == 1 || e.is(used) && v != toPod && v != toPeer && v != toNode {
					t.Errorf("%v: got %+v, version %d", e.flow, v, e.version.Load())
				}
			}
		})
		if g := table.NextGeneration(); g <= last {
			t.Errorf("generation %d after %d", g, last)
		} else {
			last = g
		}
		closed(t, table)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "flows")
	table := open(t, path, 512)
	if _, err := Open(path, 512); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second time: got %v, want %v with the path", err, ErrInUse)
	}
	create(table, numbered(packet.UDP, 1), toPod, toNode, 1) // the first one still works
	closed(t, table)
	table = open(t, path, 512)
	closed(t, table)

	for name, tt := range map[string]struct{ path, want string }{
		"directory missing": {filepath.Join(dir, "run", "flows"), "directory " + filepath.Join(dir, "run") + " does not exist"},
		"a directory":       {dir, "is a directory"},
	} {
		if _, err := Open(tt.path, 512); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, tt.want)
		}
	}
	// A mapping of a file that is not mappable must not leave the lock or the descriptor behind.
	before := countFDs(t)
	for range 10 {
		_, _ = Open(dir, 512)
		_, _ = Open("/dev/null", 512)
	}
	if after := countFDs(t); after > before {
		t.Errorf("got %d descriptors more", after-before)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestOpenFull opens a table in a file system that has no room for it: an error now, not SIGBUS at some packet later.
func TestOpenFull(t *testing.T) {
	const inside = "MIDDLEWAY_FLOW_FULL"
	if dir := os.Getenv(inside); dir != "" {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
			fmt.Println("SKIPPED", err)
			return
		}
		small := open(t, filepath.Join(dir, "small"), 512)
		defer closed(t, small)
		_, err := Open(filepath.Join(dir, "flows"), 1<<16)
		fmt.Println("RESULT", errors.Is(err, unix.ENOSPC), err)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestOpenFull$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || strings.Contains(string(out), "SKIPPED") {
		t.Skipf("no small tmpfs can be mounted here: %v %s", err, out)
	}
	if err != nil || !strings.Contains(string(out), "RESULT true") {
		t.Errorf("got %v, %s", err, out)
	}
}

// FuzzOpen opens whatever lies where a table should, and uses it.
func FuzzOpen(f *testing.F) {
	good := image(f, 512, 40)
	f.Add(true, uint32(0), []byte{}, uint32(0))                                         // as it was
	f.Add(true, uint32(headerSize), bytes.Repeat([]byte{0xff}, 4*entrySize), uint32(0)) // entries of ones
	f.Add(true, uint32(headerSize), bytes.Repeat([]byte{2, 0, 0, 0}, 4*entrySize/4), uint32(0))
	f.Add(true, uint32(8), []byte{2}, uint32(0))              // another layout
	f.Add(true, uint32(0), []byte{}, uint32(headerSize+1000)) // cut
	f.Add(false, uint32(0), []byte("mwflows\x00"), uint32(0)) // nothing but the magic
	f.Add(true, uint32(unsafe.Offsetof(header{}.generation)), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
	path := filepath.Join(f.TempDir(), "flows")
	f.Fuzz(func(t *testing.T, whole bool, at uint32, patch []byte, cut uint32) {
		b := patch
		if whole {
			b = bytes.Clone(good)
			copy(b[int(at)%len(b):], patch)
			if n := int(cut); n > 0 && n < len(b) {
				b = b[:n]
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		table, err := Open(path, 512)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		exercise(t, table)
	})
}

// exercise uses every entry of a table, whatever is in it.
func exercise(t *testing.T, table *Table) {
	if table.Len() != table.Restored() || table.Len() > len(table.entries) {
		t.Fatalf("got %v, %d restored", table, table.Restored())
	}
	cache := NewCache(table)
	now := table.now()
	for i := range table.entries {
		if e := &table.entries[i]; e.is(used) {
			c := e.copy(Ref(i))
			if c.Verdict.Action > ToNode {
				t.Fatalf("entry %d: got %+v", i, c)
			}
			if got := cache.Get(&c.Flow, now); got == nil || got.Flow != c.Flow {
				t.Fatalf("entry %d: %v is not found", i, c.Flow)
			}
			table.Rejudge(&c, toPeer, 9)
			table.Closing(&c, packet.FIN|packet.RST)
			_ = c.Flow.String()
		}
	}
	for i := range 100 {
		f := numbered(packet.UDP, i)
		if c := create(table, f, toPod, toPeer, table.NextGeneration()); c.Flow != f || c.Verdict != toPod {
			t.Fatalf("created %+v", c)
		}
	}
	table.now = func() uint32 { return now + uint32(tcpEstablished/time.Second) + 1 }
	table.sweep()
	table.sweep()
	if table.Len() != 0 {
		t.Fatalf("left over: %v", table)
	}
}
