package demo

import (
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/middleway-net/middleway/capture/pcapng"
)

// onlyPacket returns the packet of a file that has one.
func onlyPacket(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	data, info, err := r.ReadPacketData()
	if err != nil || info.Length != len(data) {
		t.Fatalf("%v; %d bytes of %d", err, len(data), info.Length)
	}
	if more, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the packet: %v, %d bytes, want the end", err, len(more))
	}
	return data
}

// compareWithTshark compares a file with what tshark reads in it, where that is installed.
func compareWithTshark(t *testing.T, file string) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		return
	}
	fields := []string{"ip.src", "ip.dst", "vxlan.vni", "tcp.dstport", "http.request.method", "frame.interface_name", "frame.comment"}
	args := []string{"-n", "-r", file, "-d", "udp.port==8472,vxlan", "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	got, err := exec.Command("tshark", args...).Output()
	want := "192.168.254.11,10.244.1.2\t192.168.254.12,10.244.2.2\t1\t8080\tGET\teth0 of node-1\t" +
		"135 bytes of the pod network, wrapped for the node network: 50 bytes added by the tunnel, 14 of the link\n"
	if err != nil || string(got) != want {
		t.Errorf("tshark: %v\n got %s\nwant %s", err, got, want)
	}
}

func TestSave(t *testing.T) {
	frame := request(t)
	f := &packetFact{
		On: "eth0 of node-1", frame: frame, Bytes: len(frame), Packet: 135, Overhead: 50, seen: time.Unix(1, 2),
		names: []pcapng.Name{{Addr: netip.MustParseAddr("10.244.1.2"), Name: "pod-1-1"}},
	}
	file := filepath.Join(t.TempDir(), "demo.pcapng")
	for range 2 { // the second one replaces the first
		if err := f.save(file); err != nil {
			t.Fatal(err)
		}
		if got := onlyPacket(t, file); string(got) != string(frame) {
			t.Errorf("got %s, want %s", hex.EncodeToString(got), hex.EncodeToString(frame))
		}
	}
	compareWithTshark(t, file)
}

// A file that cannot be written is a check that failed.
func TestRunUnwritable(t *testing.T) {
	r := &run{config: Config{Write: filepath.Join(t.TempDir(), "missing", "demo.pcapng")}, name: "packet"}
	r.write(t.Context(), &packetFact{frame: request(t)})
	if c := r.report.Checks[0]; c.OK || !strings.Contains(c.Error, "no such file or directory") || !strings.Contains(c.Error, "--write") {
		t.Errorf("got %+v", c)
	}
}
