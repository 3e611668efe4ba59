package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// syn is a record as a daemon sends it, some milliseconds after the start.
func syn(ms int) *Record {
	return &Record{
		Time: start.Add(time.Duration(ms) * time.Millisecond), Interface: "default/web-0", Direction: In, Verdict: Forwarded, Packets: 1,
		To: "pod default/db-0", Rule: "route 10.244.1.3/32", Flow: fmt.Sprintf("tcp 10.244.1.2:%d -> 10.244.1.3:5432", ms), Flags: "S",
		Length: 60, Data: []byte{0x45, 0, 0, 60},
	}
}

func TestComment(t *testing.T) {
	for want, r := range map[string]Record{
		"forwarded to pod default/db-0; route 10.244.1.3/32; tcp a -> b":                                {Verdict: Forwarded, Packets: 1, To: "pod default/db-0", Rule: "route 10.244.1.3/32", Flow: "tcp a -> b"},
		"forwarded to the host in 3 pieces; udp a -> b; as udp c -> b":                                  {Verdict: Forwarded, Packets: 3, To: "the host", Flow: "udp a -> b", As: "udp c -> b"},
		"dropped: ttl; answered: time exceeded; udp a -> b":                                             {Verdict: Dropped, Packets: 1, Reason: "ttl", Answer: "time exceeded", Flow: "udp a -> b"},
		"dropped: device, 2 pieces":                                                                     {Verdict: Dropped, Packets: 2, Reason: "device"},
		"held; udp a -> b":                                                                              {Verdict: Held, Flow: "udp a -> b"},
		"taken; path check of peer node-2 (192.168.254.12)":                                             {Verdict: Taken, Message: "path check of peer node-2 (192.168.254.12)"},
		"sent, from peer node-2 (192.168.254.12); tcp a -> b; super-packet of 3 × 1400 bytes; and more": {Verdict: Sent, From: "peer node-2 (192.168.254.12)", Flow: "tcp a -> b", Notes: []string{"super-packet of 3 × 1400 bytes", "and more"}},
	} {
		if got := r.Comment(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// daemon plays a node's.
type daemon struct {
	*Sender
	w       *io.PipeWriter
	stopped chan struct{}
	once    sync.Once
}

// newDaemon returns a daemon and the stream that comes from it.
func newDaemon(t *testing.T, node string, interfaces ...string) (*daemon, *Stream) {
	t.Helper()
	r, w := io.Pipe()
	d := &daemon{NewSender(w), w, make(chan struct{}), sync.Once{}}
	s := &Start{Version: Version, Node: node, Names: []Name{{netip.MustParseAddr("10.244.1.2"), "default/web-0"}}}
	for _, i := range interfaces {
		s.Interfaces = append(s.Interfaces, Interface{Name: i, Description: "of a test"})
	}
	go d.Send(&Message{Start: s})
	stream, err := NewStream(r, func() error { d.once.Do(func() { close(d.stopped) }); return nil }, r.Close)
	if err != nil {
		t.Fatal(err)
	}
	return d, stream
}

// end ends the stream in order when it is asked to.
func (d *daemon) end(lost map[string]uint64) {
	<-d.stopped
	d.Send(&Message{End: &End{Lost: lost}})
	d.w.Close()
}

// file merges streams into a pcapng file and returns its packets as "INTERFACE TIME COMMENT", and how many the statistics of each
// interface say were lost.
func file(t *testing.T, ctx context.Context, o Options, streams ...*Stream) (packets []string, lost map[string]uint64, totals Totals) {
	t.Helper()
	var b bytes.Buffer
	f, err := NewFile(&b, FileConfig{Application: "test", SnapLen: 4})
	if err != nil {
		t.Fatal(err)
	}
	totals, err = Merge(ctx, streams, f, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&b, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, info, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, fmt.Sprint(i.Name, " ", info.Timestamp.Sub(start), " ", options.Comments))
	}
	lost = map[string]uint64{}
	for n := range r.NInterfaces() {
		i, err := r.Interface(n)
		if err != nil {
			t.Fatal(err)
		}
		lost[i.Name] = i.Statistics.PacketsDropped
	}
	return packets, lost, totals
}

func comment(ms int) string {
	return fmt.Sprintf("[forwarded to pod default/db-0; route 10.244.1.3/32; tcp 10.244.1.2:%d -> 10.244.1.3:5432]", ms)
}

// Records of two nodes come by their times, whatever the order in which they arrive.
func TestMerge(t *testing.T) {
	one, first := newDaemon(t, "node-1", "default/web-0", "tunnel")
	two, second := newDaemon(t, "node-2", "default/web-0")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		one.Send(&Message{Record: syn(30)})
		one.Send(&Message{Record: syn(10)})
		two.Send(&Message{Record: syn(20)})
		two.Send(&Message{Names: []Name{{netip.MustParseAddr("10.244.2.2"), "default/late"}}})
		later := syn(40)
		later.Interface, later.Direction = "default/late", Out
		two.Send(&Message{Record: later})
		one.Send(&Message{Mark: start.Add(time.Second)})
		cancel()
		go one.end(map[string]uint64{"tunnel": 7})
		two.end(nil)
	}()
	packets, lost, totals := file(t, ctx, Options{Problem: func(err error) { t.Error(err) }}, first, second)
	want := []string{
		"node-1/default/web-0 10ms " + comment(10), "node-2/default/web-0 20ms " + comment(20), "node-1/default/web-0 30ms " + comment(30),
		"node-2/default/late 40ms " + comment(40),
	}
	if diff := cmp.Diff(want, packets); diff != "" {
		t.Errorf("packets (-want +got):\n%s", diff)
	}
	wantLost := map[string]uint64{"node-1/default/web-0": 0, "node-1/tunnel": 7, "node-2/default/web-0": 0, "node-2/default/late": 0}
	if diff := cmp.Diff(wantLost, lost); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
	if totals != (Totals{Records: 4, Lost: 7}) {
		t.Errorf("got %+v", totals)
	}
}

// What was wanted came: the node is asked to end, and what it still sends is not shown.
func TestCount(t *testing.T) {
	one, stream := newDaemon(t, "node-1", "default/web-0")
	go func() {
		for i := range 10 {
			one.Send(&Message{Record: syn(i)})
			one.Send(&Message{Mark: start.Add(time.Hour)})
		}
		one.end(map[string]uint64{"default/web-0": 3})
	}()
	packets, _, totals := file(t, t.Context(), Options{Count: 2}, stream)
	if len(packets) != 2 || totals != (Totals{Records: 2, Lost: 3}) {
		t.Errorf("got %q, %+v", packets, totals)
	}
}

// A daemon that dies is told of, and ends nothing but its own stream.
func TestDaemonDies(t *testing.T) {
	one, first := newDaemon(t, "node-1", "default/web-0")
	two, second := newDaemon(t, "node-2", "default/web-0")
	ctx, cancel := context.WithCancel(t.Context())
	var problems []string
	told := make(chan struct{})
	go func() {
		one.Send(&Message{Record: syn(1)})
		one.w.CloseWithError(io.ErrUnexpectedEOF) // as an HTTP answer that is cut off
		<-told
		two.Send(&Message{Record: syn(2)})
		cancel()
		two.end(nil)
	}()
	packets, _, _ := file(t, ctx, Options{Problem: func(err error) { problems = append(problems, err.Error()); close(told) }}, first, second)
	if len(packets) != 2 || len(problems) != 1 || !strings.Contains(problems[0], "node-1: its daemon ended") {
		t.Errorf("got %q, %q", packets, problems)
	}
}

// Nodes that end by themselves, the one soon after the other, are told of once, and end the capture.
func TestNodesEnd(t *testing.T) {
	one, first := newDaemon(t, "node-2", "default/web-0")
	two, second := newDaemon(t, "node-1", "default/web-0")
	go func() {
		one.Send(&Message{Record: syn(1)})
		one.Send(&Message{End: &End{Lost: map[string]uint64{"default/web-0": 2}, Reason: "the daemon ended"}})
		time.Sleep(2 * flushEvery)
		two.Send(&Message{End: &End{Reason: "the daemon ended"}})
	}()
	var told []string
	packets, _, totals := file(t, t.Context(), Options{
		Problem: func(err error) { t.Error(err) },
		Ended:   func(nodes []string, reason string) { told = append(told, fmt.Sprint(nodes, " ", reason)) },
	}, first, second)
	if diff := cmp.Diff([]string{"[node-1 node-2] the daemon ended"}, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(packets) != 1 || totals != (Totals{Records: 1, Lost: 2}) {
		t.Errorf("got %q, %+v", packets, totals)
	}
}

// A node that ends while others go on is told of before they end.
func TestNodeEndsFirst(t *testing.T) {
	one, first := newDaemon(t, "node-1", "default/web-0")
	two, second := newDaemon(t, "node-2", "default/web-0")
	go one.Send(&Message{End: &End{Reason: "the daemon ended"}})
	var told []string
	_, _, _ = file(t, t.Context(), Options{
		Ended: func(nodes []string, reason string) {
			told = append(told, fmt.Sprint(nodes, " ", reason))
			go two.Send(&Message{End: &End{Reason: "the daemon ended"}})
		},
	}, first, second)
	if diff := cmp.Diff([]string{"[node-1] the daemon ended", "[node-2] the daemon ended"}, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A daemon that says nothing any more holds up the packets of others for a moment only.
func TestDaemonStalls(t *testing.T) {
	one, first := newDaemon(t, "node-1", "default/web-0")
	two, second := newDaemon(t, "node-2", "default/web-0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown := &signal{Sink: NewText(io.Discard), shown: make(chan struct{})}
	go func() {
		two.Send(&Message{Mark: start})
		one.Send(&Message{Record: syn(1000)})
		select {
		case <-shown.shown:
		case <-time.After(time.Minute):
			t.Error("the packet of the other node is held up")
		}
		cancel()
		go one.end(nil)
		two.end(nil)
	}()
	totals, err := Merge(ctx, []*Stream{first, second}, shown, Options{})
	if err != nil || totals.Records != 1 {
		t.Errorf("got %+v, %v", totals, err)
	}
}

// signal tells when a record is shown.
type signal struct {
	Sink
	shown chan struct{}
}

func (s *signal) Record(r *Record) error {
	close(s.shown)
	return s.Sink.Record(r)
}

// A sink that takes no more ends the capture.
func TestSinkFails(t *testing.T) {
	one, stream := newDaemon(t, "node-1", "default/web-0")
	go func() {
		one.Send(&Message{Record: syn(1)})
		one.Send(&Message{Mark: start.Add(time.Hour)})
		one.end(nil)
	}()
	_, err := Merge(t.Context(), []*Stream{stream}, NewText(failing{}), Options{})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLines(t *testing.T) {
	r := syn(1)
	r.Node, r.Time = "node-1", r.Time.Local()
	var text, objects bytes.Buffer
	message := Record{Time: r.Time, Node: "node-1", Interface: "tunnel", Direction: In, Verdict: Taken, Message: "path check of peer node-2 (192.168.254.12)", Length: 110}
	for _, sink := range []Sink{NewText(&text), NewJSON(&objects)} {
		evil := *r
		evil.Interface, evil.Verdict, evil.Packets, evil.Reason, evil.Flow, evil.Flags, evil.To = "tunnel", Dropped, 1, "not-vxlan", "", "", "\x1b[2J"
		if err := errors.Join(sink.Start(&Start{}), sink.Names(nil), sink.Record(r), sink.Record(&evil), sink.Record(&message), sink.End("node-1", nil), sink.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	at := r.Time.Format("15:04:05.000000")
	want := at + ` node-1/default/web-0 in  tcp 10.244.1.2:1 -> 10.244.1.3:5432 [S], 60 bytes: forwarded to pod default/db-0; route 10.244.1.3/32
` + at + ` node-1/tunnel in  unreadable, 60 bytes: dropped: not-vxlan; route 10.244.1.3/32
` + at + ` node-1/tunnel in  path check of peer node-2 (192.168.254.12), 110 bytes: taken
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
	line, _, _ := strings.Cut(objects.String(), "\n")
	var got struct {
		Record
		Comment string `json:"comment"`
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, got.Record); diff != "" || got.Comment != r.Comment() {
		t.Errorf("%s, comment %q", diff, got.Comment)
	}
	if got := printable("a\x1b[2J\x7fé"); got != "a?[2J?é" {
		t.Errorf("got %q", got)
	}
}

// Another version, and what is none, are refused in a sentence.
func TestNewStream(t *testing.T) {
	nothing := func() error { return nil }
	for name, messages := range map[string][]*Message{"another version": {{Start: &Start{Version: Version + 1}}}, "no start": {{Mark: start}}, "nothing": nil} {
		var b bytes.Buffer
		s := NewSender(&b)
		for _, m := range messages {
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := NewStream(&b, nothing, nothing); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzStream: whatever comes from a socket is a stream or an error, and what is taken from it can be shown.
func FuzzStream(f *testing.F) {
	var b bytes.Buffer
	s := NewSender(&b)
	for _, m := range []*Message{{Start: &Start{Version: Version, Node: "node-1"}}, {Record: syn(1)}, {Mark: start}, {Names: []Name{{netip.MustParseAddr("::1"), "x"}}}, {End: &End{Lost: map[string]uint64{"x": 1}}}} {
		if err := s.Send(m); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()/2])
	f.Add([]byte("HTTP/1.1 200 OK\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		nothing := func() error { return nil }
		stream, err := NewStream(bytes.NewReader(data), nothing, nothing)
		if err != nil {
			return
		}
		file, err := NewFile(io.Discard, FileConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for _, sink := range []Sink{file, NewText(io.Discard), NewJSON(io.Discard)} {
			if err := sink.Start(&stream.Start); err != nil {
				t.Fatal(err)
			}
		}
		for {
			m, err := stream.Next()
			if err != nil {
				return
			}
			if m.Record != nil {
				if err := errors.Join(file.Record(m.Record), NewText(io.Discard).Record(m.Record)); err != nil {
					t.Fatal(err)
				}
			}
			if err := file.Names(m.Names); err != nil {
				t.Fatal(err)
			}
		}
	})
}
