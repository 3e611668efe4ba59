package fragment

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

var (
	podA, podB   = netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3")
	podA6, podB6 = netip.MustParseAddr("fd00:10:244:1::2"), netip.MustParseAddr("fd00:10:244:2::3")
)

// pieces returns a datagram of n bytes of payload in fragments.
func pieces(t testing.TB, d packettest.Packet, n int) (all [][]byte) {
	t.Helper()
	d.Payload = make([]byte, n)
	for i := range d.Payload {
		d.Payload[i] = byte(i>>4) ^ byte(d.ID)
	}
	return packettest.Fragments(d.Frame()[packet.VnetLen:], 1280, uint32(d.ID))
}

func parse(t testing.TB, b []byte) *packet.Parsed {
	t.Helper()
	p := new(packet.Parsed)
	if r := packet.Parse(b, p); r != packet.Kept {
		t.Fatalf("Parse(% x): %v", b[:min(len(b), 60)], r)
	}
	return p
}

// through hands a fragment to the table and returns those that pass with it, by flow and offset.
func through(t testing.TB, table *Table, b []byte, now time.Duration) (passed []string) {
	t.Helper()
	p := parse(t, b)
	if p.FragmentOffset > 0 {
		found, r := table.Later(b, p, now)
		switch {
		case r != packet.Kept:
			return []string{r.String()}
		case !found:
			return nil
		}
		return []string{fmt.Sprint(p.Flow, " ", p.FragmentOffset)}
	}
	waiting, r := table.First(p, now)
	if r != packet.Kept {
		return []string{r.String()}
	}
	passed = []string{fmt.Sprint(p.Flow, " ", p.FragmentOffset)}
	for _, w := range waiting {
		passed = append(passed, through(t, table, w, now)...)
	}
	return passed
}

func (t *Table) drops() map[string]uint64 {
	sum := map[string]uint64{}
	t.AddDrops(sum)
	return sum
}

func TestTable(t *testing.T) {
	d := packettest.Packet{Src: podA, Dst: podB, SrcPort: 4000, DstPort: 53, ID: 7}
	d6 := packettest.Packet{Src: podA6, Dst: podB6, SrcPort: 4000, DstPort: 53, ID: 7}
	a, a6 := pieces(t, d, 3000), pieces(t, d6, 3000)
	d.DstPort, d6.DstPort = 80, 80
	b, b6 := pieces(t, d, 3000), pieces(t, d6, 3000)
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
		}
		return b
	}
	const flow, flow80 = "udp 10.244.1.2:4000 -> 10.244.2.3:53 ", "udp 10.244.1.2:4000 -> 10.244.2.3:80 "
	const six = "udp [fd00:10:244:1::2]:4000 -> [fd00:10:244:2::3]:53 "
	type step struct {
		now  time.Duration
		b    []byte
		want []string
	}
	for _, tt := range []struct {
		name  string
		steps []step
		drops map[string]uint64
	}{
		{"in order", []step{{0, a[0], []string{flow + "0"}}, {0, a[1], []string{flow + "1256"}}, {0, a[2], []string{flow + "2512"}}}, nil},
		{"first in the middle", []step{{0, a[2], nil}, {0, a[0], []string{flow + "0", flow + "2512"}}, {0, a[1], []string{flow + "1256"}}}, nil},
		{"first at the end", []step{{0, a[2], nil}, {5e8, a[1], nil}, {9e8, a[0], []string{flow + "0", flow + "2512", flow + "1256"}}}, nil},
		{"first too late", []step{{0, a[2], nil}, {1e9, a[0], []string{flow + "0"}}}, map[string]uint64{"fragment-timeout": 1}},
		{"waiting is not prolonged", []step{{0, a[2], nil}, {9e8, a[1], nil}, {11e8, a[0], []string{flow + "0"}}}, map[string]uint64{"fragment-timeout": 2}},
		{"later too late", []step{{0, a[0], []string{flow + "0"}}, {29e9, a[1], []string{flow + "1256"}}, {30e9, a[2], nil}}, nil},
		{"duplicates", []step{{0, a[1], nil}, {0, a[1], nil}, {0, a[0], []string{flow + "0", flow + "1256", flow + "1256"}}, {0, a[0], []string{flow + "0"}}, {0, a[2], []string{flow + "2512"}}, {0, a[2], []string{flow + "2512"}}}, nil},
		{"a duplicate after all have passed", []step{{0, a[0], []string{flow + "0"}}, {0, a[1], []string{flow + "1256"}}, {0, a[2], []string{flow + "2512"}}, {9e8, a[1], []string{flow + "1256"}}}, nil},
		{"ID used again", []step{{0, a[0], []string{flow + "0"}}, {0, a[1], []string{flow + "1256"}}, {0, a[2], []string{flow + "2512"}}, {1e9, b[1], nil}, {1e9, b[0], []string{flow80 + "0", flow80 + "1256"}}}, nil},
		{"ID used again before all have passed", []step{{0, a[0], []string{flow + "0"}}, {0, b[0], []string{flow80 + "0"}}, {0, b[1], []string{flow80 + "1256"}}}, nil},
		{"another ID", []step{{0, a[0], []string{flow + "0"}}, {0, edit(a[1], 5, 8), nil}}, nil},
		{"another protocol", []step{{0, a[0], []string{flow + "0"}}, {0, edit(a[1], 9, 200), nil}}, nil},
		{"over the transport header", []step{{0, edit(a[0], 9, byte(packet.SCTP)), []string{"sctp 10.244.1.2:4000 -> 10.244.2.3:53 0"}}, {0, edit(edit(a[1], 9, byte(packet.SCTP)), 7, 1), []string{"fragment"}}}, nil},
		{"over the transport header, early", []step{{0, edit(edit(a[1], 9, byte(packet.SCTP)), 7, 1), nil}, {0, edit(a[0], 9, byte(packet.SCTP)), []string{"sctp 10.244.1.2:4000 -> 10.244.2.3:53 0", "fragment"}}}, nil},
		{"IPv6", []step{{0, a6[1], nil}, {0, a6[0], []string{six + "0", six + "1232"}}, {0, a6[2], []string{six + "2464"}}}, nil},
		{"IPv6, another next header", []step{{0, a6[0], []string{six + "0"}}, {0, edit(a6[1], 40, 60), []string{six + "1232"}}}, nil},
		{"IPv6, the first again", []step{{0, a6[0], []string{six + "0"}}, {0, a6[0], []string{six + "0"}}}, nil},
		{"IPv6, two different firsts", []step{{0, a6[0], []string{six + "0"}}, {0, b6[0], []string{"fragment"}}, {0, a6[1], []string{"fragment"}}, {0, a6[0], []string{"fragment"}}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := New()
			for i, s := range tt.steps {
				if diff := cmp.Diff(s.want, through(t, table, s.b, s.now)); diff != "" {
					t.Errorf("step %d: passed (-want +got):\n%s", i+1, diff)
				}
			}
			table.sweep(tt.steps[len(tt.steps)-1].now)
			if tt.drops == nil {
				tt.drops = map[string]uint64{}
			}
			if diff := cmp.Diff(tt.drops, table.drops()); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOrders hands over the fragments of many packets of both families in random order: none is lost, each takes the flow of
// its own packet.
func TestOrders(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	table := New()
	type one struct {
		b    []byte
		port int
	}
	var all []one
	want := 0
	for i := range 60 {
		d := packettest.Packet{Src: podA, Dst: podB, SrcPort: uint16(i), DstPort: 53, ID: uint16(i)}
		if i%2 == 0 {
			d.Src, d.Dst = podA6, podB6
		}
		for _, b := range pieces(t, d, 1300+r.IntN(4000)) {
			all = append(all, one{b, i})
			want++
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	got := map[string]int{}
	for _, o := range all {
		for _, s := range through(t, table, o.b, 0) {
			got[s]++
		}
	}
	n := 0
	for s, times := range got {
		if times != 1 {
			t.Errorf("%s: %d times", s, times)
		}
		n += times
	}
	if n != want || table.waiting.Load() != 0 || len(table.drops()) > 0 {
		t.Errorf("seed %d: %d of %d passed, %d wait, dropped %v", seed, n, want, table.waiting.Load(), table.drops())
	}
}

// TestBounds floods the table with fragments whose first never comes.
func TestBounds(t *testing.T) {
	table := New()
	full := 0
	send := func(src netip.Addr, packets int, now time.Duration) {
		for id := range packets {
			b := pieces(t, packettest.Packet{Src: src, Dst: podB, ID: uint16(id)}, 1300)[1:]
			for range 200 {
				if _, r := table.Later(b[0], parse(t, b[0]), now); r == packet.DropFragmentFull {
					full++
				}
			}
		}
	}
	send(podA, 1, 0)
	if full != 200-maxWaiting || table.waiting.Load() != maxWaiting {
		t.Errorf("one packet: %d refused, %d wait, want %d to wait", full, table.waiting.Load(), maxWaiting)
	}
	send(podA, 500, 0)
	src := podA
	for range 100 {
		src = src.Next()
		send(src, 100, 0)
	}
	held := 0
	for i := range table.shards {
		if n := table.shards[i].bytes; n > shardBytes || n < 0 {
			t.Errorf("shard %d holds %d bytes of at most %d", i, n, shardBytes)
		}
		held += table.shards[i].bytes
	}
	if held == 0 || full == 0 {
		t.Errorf("%d bytes wait, %d refused", held, full)
	}
	waiting, before := table.waiting.Load(), table.drops()["fragment-timeout"]
	table.sweep(waitFor)
	for i := range table.shards {
		if n := table.shards[i].bytes; n != 0 {
			t.Errorf("shard %d holds %d bytes after the time is over", i, n)
		}
	}
	if got := table.drops()["fragment-timeout"] - before; got != uint64(waiting) || table.waiting.Load() != 0 {
		t.Errorf("%d timed out, %d wait, want all of %d to time out", got, table.waiting.Load(), waiting)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, start := New(), time.Now()
		clock := func() time.Duration { return time.Since(start) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- table.Run(ctx, clock) }()
		a := pieces(t, packettest.Packet{Src: podA, Dst: podB}, 1300)
		through(t, table, a[1], clock())
		time.Sleep(waitFor - sweepEvery)
		if n := table.waiting.Load(); n != 1 {
			t.Errorf("%d wait in time, want 1", n)
		}
		time.Sleep(3 * sweepEvery)
		if n := table.waiting.Load(); n != 0 {
			t.Errorf("%d wait after the time is over", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestConcurrent: workers share the table; every fragment passes once, at one of them.
func TestConcurrent(t *testing.T) {
	const workers, packets = 4, 300
	table := New()
	queues := make([][][]byte, workers)
	want := 0
	r := rand.New(rand.NewPCG(1, 2))
	for i := range packets {
		for _, b := range pieces(t, packettest.Packet{Src: podA, Dst: podB, SrcPort: uint16(i), ID: uint16(i)}, 5000) {
			w := r.IntN(workers)
			queues[w] = append(queues[w], b)
			want++
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	passed := map[string]int{}
	lost := 0
	for _, q := range queues {
		wg.Go(func() {
			for _, b := range q {
				for _, s := range through(t, table, b, 0) {
					mu.Lock()
					passed[s]++
					if s == "fragments-full" {
						lost++
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for _, times := range passed {
		n += times
	}
	// A worker that is ahead of the others may fill the shard: what did not pass is counted.
	if left := int(table.waiting.Load()) + int(table.drops()["fragments-full"]); n+left != want {
		t.Errorf("%d of %d passed (%d refused), %d wait or were pushed out", n, want, lost, left)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 0}, false)                // in order
	f.Add([]byte{2, 0, 1, 0, 0, 0}, true)                 // backwards
	f.Add([]byte{1, 1, 0, 250, 2, 250, 0, 0, 1, 0}, true) // across time
	var families [2][][]byte
	for i, d := range []packettest.Packet{{Src: podA, Dst: podB, SrcPort: 1}, {Src: podA6, Dst: podB6, SrcPort: 1}} {
		for port := range 3 {
			for id := range 20 {
				d.DstPort, d.ID = uint16(port), uint16(id)
				families[i] = append(families[i], pieces(f, d, 3000)...)
			}
		}
	}
	f.Fuzz(func(t *testing.T, steps []byte, v6 bool) {
		all := families[0]
		if v6 {
			all = families[1]
		}
		table, now := New(), time.Duration(0)
		in, out := 0, 0
		for ; len(steps) > 1; steps = steps[2:] {
			now += time.Duration(steps[1]) * 10 * time.Millisecond
			in++
			out += len(through(t, table, all[int(steps[0])%len(all)], now))
			if steps[1]&1 == 1 {
				table.sweep(now)
			}
		}
		waits := int(table.waiting.Load())
		for _, n := range table.drops() {
			waits += int(n)
		}
		if in != out+waits {
			t.Fatalf("%d came, %d passed, %d wait or were dropped", in, out, waits)
		}
		table.sweep(now + time.Hour)
		for i := range table.shards {
			if table.shards[i].bytes != 0 || table.waiting.Load() != 0 {
				t.Fatal("something waits for ever")
			}
		}
	})
}

func TestAllocs(t *testing.T) {
	table := New()
	all := pieces(t, packettest.Packet{Src: podA, Dst: podB}, 3000)
	parsed := make([]*packet.Parsed, len(all))
	for i, b := range all {
		parsed[i] = parse(t, b)
	}
	if n := testing.AllocsPerRun(100, func() {
		for i, b := range all {
			if p := *parsed[i]; i == 0 {
				table.First(&p, 0)
			} else {
				table.Later(b, &p, 0)
			}
		}
	}); n != 0 {
		t.Errorf("in order: got %v allocations, want 0", n)
	}
}
