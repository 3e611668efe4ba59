package playground

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// healthServer answers as a gRPC health service does, with what answer returns for a request's message.
func healthServer(t *testing.T, answer func(request string) (message string, status string)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveHealth(t, l, answer)
	return l.Addr().String()
}

func serveHealth(t *testing.T, l net.Listener, answer func(request string) (message string, status string)) {
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("TE") != "trailers" {
			http.Error(w, "no health service", http.StatusNotFound)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		message, status := answer(string(b))
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, message)
		w.Header().Set("Grpc-Status", status)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

func TestAskHealth(t *testing.T) {
	for _, tt := range []struct {
		name, service, request, message, status, want string
	}{
		{"serving", "", "\x00\x00\x00\x00\x02\x0a\x00", "\x00\x00\x00\x00\x02\x08\x01", "0", ""},
		{"a service", "db", "\x00\x00\x00\x00\x04\x0a\x02db", "\x00\x00\x00\x00\x02\x08\x01", "0", ""},
		{"unknown field", "", "\x00\x00\x00\x00\x02\x0a\x00", "\x00\x00\x00\x00\x05\x12\x01x\x08\x01", "0", ""},
		{"not serving", "db", "\x00\x00\x00\x00\x04\x0a\x02db", "\x00\x00\x00\x00\x02\x08\x02", "0", `the health of service "db" is NOT_SERVING`},
		{"field left out", "", "\x00\x00\x00\x00\x02\x0a\x00", "\x00\x00\x00\x00\x00", "0", "UNKNOWN"},
		{"new health", "", "\x00\x00\x00\x00\x02\x0a\x00", "\x00\x00\x00\x00\x02\x08\x63", "0", "something unknown"},
		{"no such service", "x", "\x00\x00\x00\x00\x03\x0a\x01x", "", "5", `the gRPC status is "5"`},
		{"nonsense", "", "\x00\x00\x00\x00\x02\x0a\x00", "\x00\x00\x00\x00\x03\x08\x01", "0", errHealth.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := healthServer(t, func(request string) (string, string) {
				if request != tt.request {
					t.Errorf("asked %q, want %q", request, tt.request)
				}
				return tt.message, tt.status
			})
			err := askHealth(t.Context(), (&net.Dialer{}).DialContext, addr, tt.service)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A server that never answers is left when the time is up: nothing stays connected.
func TestAskHealthLeaves(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := askHealth(ctx, (&net.Dialer{}).DialContext, l.Addr().String(), ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is left")
	}
}

func FuzzParseHealth(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x05\x12\x01x\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if health, err := parseHealth(b); err != nil && health != 0 {
			t.Errorf("got %d with %v", health, err)
		}
	})
}
