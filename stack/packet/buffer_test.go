package packet

import (
	"sync"
	"testing"
)

func TestBuffer(t *testing.T) {
	var pool Pool
	b := pool.Get()
	frame := framed(tcp4(10).build())
	n := copy(b.Space(), frame)
	b.SetFrame(n)
	if string(b.Frame()) != string(frame) || string(b.Packet()) != string(frame[VnetLen:]) {
		t.Errorf("got frame % x, want % x", b.Frame(), frame)
	}
	b.Trim(30)
	if len(b.Packet()) != 30 || len(b.Frame()) != VnetLen+30 {
		t.Errorf("after Trim: got %d bytes, want 30", len(b.Packet()))
	}
	head := b.Prepend(Headroom)
	if len(head) != Headroom+30 || string(head[Headroom:]) != string(frame[VnetLen:][:30]) || &head[0] != &b.Packet()[0] {
		t.Errorf("after Prepend: got %d bytes, want %d", len(head), Headroom+30)
	}
	b.Release()
	if b = pool.Get(); len(b.Space()) < VnetLen+MaxSize+40 { // the largest IPv6 packet: 40 bytes and a length of 16 bits
		t.Errorf("space: got %d bytes", len(b.Space()))
	}
	if b.SetFrame(VnetLen); len(b.Packet()) != 0 {
		t.Errorf("an empty frame: got %d bytes", len(b.Packet()))
	}
}

func TestPool(t *testing.T) {
	var pool Pool
	a, b, c := pool.Get(), pool.Get(), pool.Get()
	if a == b || b == c || pool.Made() != 3 {
		t.Fatalf("made %d, want 3 different ones", pool.Made())
	}
	a.Release()
	c.Release()
	b.Release()
	for i, want := range []*Buffer{b, c, a} {
		if got := pool.Get(); got != want {
			t.Errorf("buffer %d is not the one released last", i)
		}
	}
	if pool.Get(); pool.Made() != 4 {
		t.Errorf("made %d, want 4", pool.Made())
	}
}

func TestDoubleRelease(t *testing.T) {
	var pool Pool
	b := pool.Get()
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("a second Release did not panic")
		}
		if a, b := pool.Get(), pool.Get(); a == b {
			t.Error("the pool hands out one buffer twice")
		}
	}()
	b.Release()
}

func TestPoolAllocs(t *testing.T) {
	var pool Pool
	pool.Get().Release()
	if n := testing.AllocsPerRun(100, func() { pool.Get().Release() }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// BenchmarkSlab gets a buffer, touches its packet's first bytes and gives it back: our list, sync.Pool, and the allocator.
func BenchmarkSlab(b *testing.B) {
	b.Run("lifo", func(b *testing.B) {
		var pool Pool
		b.ReportAllocs()
		for b.Loop() {
			s := pool.Get()
			s.Space()[0]++
			s.Release()
		}
	})
	b.Run("sync.Pool", func(b *testing.B) {
		pool := sync.Pool{New: func() any { return &Buffer{slab: make([]byte, slabSize)} }}
		b.ReportAllocs()
		for b.Loop() {
			s := pool.Get().(*Buffer)
			s.Space()[0]++
			pool.Put(s)
		}
	})
	b.Run("make", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := &Buffer{slab: make([]byte, slabSize)}
			s.Space()[0]++
			sink = s
		}
	})
}

var sink *Buffer
