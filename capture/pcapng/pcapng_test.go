package pcapng

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)

// echo is an IPv4 packet: a ping from 10.244.1.2 to 10.244.1.3, of 28 bytes.
var echo = []byte{
	0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x62, 0xf4, 10, 244, 1, 2, 10, 244, 1, 3,
	8, 0, 0xf7, 0xfd, 0, 1, 0, 1,
}

var section = Section{Hardware: "amd64", OS: "linux", Application: "middleway test", Comment: "a comment"}

var interfaces = []Interface{
	{Name: "node-1/default/web-0", Description: "the pod's eth0", LinkType: Raw, SnapLen: 128, Filter: "--host 10.244.1.2"},
	{Name: "node-1/tunnel", LinkType: Raw},
}

var packets = []Packet{
	{Interface: 0, Time: start, Data: echo, Direction: Inbound, Comment: "forwarded to pod default/web-0"},
	{Interface: 1, Time: start.Add(1), Data: echo[:21], Length: 28, Direction: Outbound, Comment: "äöü, and three bytes: abc"},
	{Interface: 0, Time: start.Add(2), Data: echo},
}

var names = []Name{
	{netip.MustParseAddr("10.244.1.2"), "web-0.default"},
	{netip.MustParseAddr("fd00:10:244:1::2"), "web-0.default"},
}

// write returns the file of the packets above.
func write(t testing.TB) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file, section)
	for _, i := range interfaces {
		_, added := w.AddInterface(i)
		err = errors.Join(err, added)
	}
	err = errors.Join(err, w.AddNames(names))
	for _, p := range packets {
		err = errors.Join(err, w.WritePacket(p))
	}
	for i := range interfaces {
		err = errors.Join(err, w.WriteStatistics(i, Statistics{Start: start, End: start.Add(time.Second), Captured: 5, Lost: uint64(3 + i)}))
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// Another's reader finds what was written.
func TestRead(t *testing.T) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(write(t)), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.SectionInfo(); got.Hardware != section.Hardware || got.OS != section.OS || got.Application != section.Application || got.Comment != section.Comment {
		t.Errorf("got %+v", got)
	}
	for _, want := range packets {
		data, info, options, err := r.ReadPacketDataWithOptions()
		if err != nil {
			t.Fatal(err)
		}
		got := Packet{Interface: info.InterfaceIndex, Time: info.Timestamp, Data: data, Length: info.Length, Comment: strings.Join(options.Comments, "|")}
		if options.Flags != nil {
			got.Direction = Direction(options.Flags.Direction)
		}
		if want.Length == 0 {
			want.Length = len(want.Data)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last packet: %v", err)
	}
	for i, want := range interfaces {
		got, err := r.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != want.Name || got.Description != want.Description || got.Filter != want.Filter ||
			uint32(got.SnapLength) != want.SnapLen || uint16(got.LinkType) != uint16(want.LinkType) || got.TimestampResolution != 9 {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if s := got.Statistics; s.PacketsDropped != uint64(3+i) || !s.StartTime.Equal(start) || !s.EndTime.Equal(start.Add(time.Second)) {
			t.Errorf("got %+v", s)
		}
	}
}

// A file that was flushed is complete, wherever its writer stopped.
func TestFlushed(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, Section{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface(Interface{Name: "eth0", LinkType: Raw}); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := errors.Join(w.WritePacket(Packet{Time: start, Data: echo}), w.Flush()); err != nil {
			t.Fatal(err)
		}
		r, err := pcapgo.NewNgReader(bytes.NewReader(file.Bytes()), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		for range n + 1 {
			if _, _, err := r.ReadPacketData(); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	}
}

// What an option cannot hold is cut, and what names no interface is refused.
func TestBounds(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, Section{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{w.WritePacket(Packet{Data: echo}), w.WriteStatistics(0, Statistics{}), w.WritePacket(Packet{Interface: -1})} {
		if err == nil || !strings.Contains(err.Error(), "there is no interface") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := w.AddInterface(Interface{Name: "eth0", LinkType: Raw}); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1<<17)
	if err := errors.Join(w.AddNames([]Name{{names[0].Addr, long}}), w.WritePacket(Packet{Time: start, Data: echo, Comment: long}), w.Flush()); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	data, _, options, err := r.ReadPacketDataWithOptions()
	if err != nil || !bytes.Equal(data, echo) || len(options.Comments) != 1 || options.Comments[0] != long[:maxOption] {
		t.Errorf("got %d comments, %v", len(options.Comments), err)
	}
}

// tshark, where it is installed, reads times, interfaces, comments, directions and names.
func TestTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed: apt-get install tshark")
	}
	file := filepath.Join(t.TempDir(), "capture.pcapng")
	if err := os.WriteFile(file, write(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tshark, "-r", file, "-N", "n", "-T", "fields", "-E", "separator=|",
		"-e", "frame.interface_name", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.packet_flags_direction", "-e", "frame.comment", "-e", "ip.src_host").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := `node-1/default/web-0|1767323045.678901234|28|0x00000001|forwarded to pod default/web-0|web-0.default
node-1/tunnel|1767323045.678901235|28|0x00000002|äöü, and three bytes: abc|web-0.default
node-1/default/web-0|1767323045.678901236|28|||web-0.default
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteAllocs(t *testing.T) {
	w, err := NewWriter(io.Discard, section)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface(interfaces[0]); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := w.WritePacket(packets[0]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// Whatever is written is read as it was written.
func FuzzWrite(f *testing.F) {
	f.Add(echo, "forwarded", "eth0", int64(1), 28)
	f.Add([]byte{}, "", "", int64(0), 0)
	f.Add(echo[:3], "a\x00b", "\xff", int64(-1), -1)
	f.Fuzz(func(t *testing.T, data []byte, comment, name string, ns int64, length int) {
		if len(data) > 1<<16 || length > 1<<20 || len(comment) > maxOption || len(name) > maxOption {
			return
		}
		var file bytes.Buffer
		w, err := NewWriter(&file, Section{Comment: comment})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.AddInterface(Interface{Name: name, LinkType: Raw}); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(0, ns&(1<<62-1))
		if err := errors.Join(w.WritePacket(Packet{Time: at, Data: data, Length: length, Comment: comment}), w.Flush()); err != nil {
			t.Fatal(err)
		}
		r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		got, info, options, err := r.ReadPacketDataWithOptions()
		if err != nil || !bytes.Equal(got, data) || !info.Timestamp.Equal(at) || info.Length != max(length, len(data)) ||
			strings.Join(options.Comments, "") != comment {
			t.Fatalf("got %x, %+v, %q, %v", got, info, options.Comments, err)
		}
	})
}
