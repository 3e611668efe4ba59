package tool

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func serve(t *testing.T) netip.AddrPort {
	t.Helper()
	l := listen(t)
	s := Serve(l)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

var dial Dial = (&net.Dialer{}).DialContext

func TestGet(t *testing.T) {
	v, err := Get(t.Context(), dial, serve(t))
	if err != nil {
		t.Fatal(err)
	}
	if v.Client != v.Seen || !v.Client.Addr().IsLoopback() || v.Client.Port() == 0 || v.Took <= 0 {
		t.Errorf("got %+v, want the same loopback address twice", v)
	}
}

func TestDownload(t *testing.T) {
	server := serve(t)
	for _, size := range []int64{0, 1, maxChunk, 3<<20 + 1} {
		var last int64
		r, err := Download(t.Context(), dial, server, DownloadConfig{Size: size, Progress: func(n int64) { last = n }})
		if err != nil || r.Bytes != size || last != size || len(r.SHA256) != 64 {
			t.Errorf("%d bytes: got %+v, %v, told of %d", size, r, err, last)
		}
	}
}

// The rate is kept, and it leaves no gap that would pass for a stall.
func TestDownloadRate(t *testing.T) {
	r, err := Download(t.Context(), dial, serve(t), DownloadConfig{Size: 1 << 20, Rate: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if r.Took < 240*time.Millisecond {
		t.Errorf("got 1 MiB at 4 MiB/s in %v, want about 250 ms", r.Took)
	}
}

func TestDownloadFails(t *testing.T) {
	l := listen(t)
	broken := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("size") {
		case "1":
			http.NotFound(w, r)
		case "2":
			w.Header().Set("Trailer", hashHeader)
			io.WriteString(w, "ab")
			w.Header().Set(hashHeader, "00")
		case "3":
			io.WriteString(w, "ab")
		case "4":
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "ab")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})}
	go broken.Serve(l)
	defer broken.Close()
	server := netip.MustParseAddrPort(l.Addr().String())
	for _, tt := range []struct {
		size int64
		want string
	}{
		{1, "404"}, {2, ErrHash.Error()}, {3, "2 of 3 bytes"}, {4, "after 2 of 4 bytes"},
	} {
		_, err := Download(t.Context(), dial, server, DownloadConfig{Size: tt.size})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("size %d: got %v, want an error with %q", tt.size, err, tt.want)
		}
	}
}

// slowly pauses before each of its parts.
type slowly struct {
	pauses []time.Duration
	part   int
}

func (s *slowly) Read(b []byte) (int, error) {
	if s.part == len(s.pauses) {
		return 0, io.EOF
	}
	time.Sleep(s.pauses[s.part])
	s.part++
	return copy(b, "0123456789"), nil
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := receive(&slowly{pauses: []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Second, time.Second}}, nil)
		if err != nil || r.Bytes != 40 || r.Stall != 5*time.Second || r.StallAt != 20 {
			t.Errorf("got %+v, %v, want a stall of 5s at 20 bytes", r, err)
		}
	})
}

func TestSendBlobRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		start := time.Now()
		if err := sendBlob(&b, 3<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); b.Len() != 3<<20 || took < 2900*time.Millisecond || took > 3*time.Second {
			t.Errorf("got %d bytes in %v, want 3 MiB in a bit less than 3s", b.Len(), took)
		}
	})
}
