package playground

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab/control"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Close() })
	return conn.(*net.UnixConn), server
}

func TestRequest(t *testing.T) {
	client, server := pair(t)
	want := ExecRequest{Namespace: "default", Pod: "web", Command: []string{"sh", "-c", strings.Repeat("x", 1<<20)}}
	go func() {
		_ = sendRequest(client, request{Verb: verbExec, Exec: &want}, os.Stdin, os.Stdout, os.Stderr)
	}()
	req, files, err := receiveRequest(server)
	if err != nil || len(files) != 3 {
		t.Fatalf("got %v, %d files", err, len(files))
	}
	for _, f := range files {
		f.Close()
	}
	if diff := cmp.Diff(want, *req.Exec); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRequestErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		req   request
		files []*os.File
		want  string
	}{
		{"unknown verb", request{Verb: "reboot"}, nil, "another language"},
		{"exec without streams", request{Verb: verbExec, Exec: &ExecRequest{Command: []string{"x"}}}, nil, "another language"},
		{"exec with two streams", request{Verb: verbExec, Exec: &ExecRequest{Command: []string{"x"}}}, []*os.File{os.Stdin, os.Stdout}, "another language"},
		{"exec without a command", request{Verb: verbExec, Exec: &ExecRequest{}}, []*os.File{os.Stdin, os.Stdout, os.Stderr}, "another language"},
		{"exec without a request", request{Verb: verbExec}, []*os.File{os.Stdin, os.Stdout, os.Stderr}, "another language"},
		{"logs without a request", request{Verb: verbLogs}, nil, "another language"},
		{"status with a request for logs", request{Verb: verbStatus, Logs: &LogsRequest{}}, nil, "another language"},
		{"list without a query", request{Verb: verbList}, nil, "another language"},
		{"watch without a query", request{Verb: verbWatch, Apply: &control.ApplyRequest{}}, nil, "another language"},
		{"apply without a request", request{Verb: verbApply}, nil, "another language"},
		{"delete without a request", request{Verb: verbDelete}, nil, "another language"},
		{"scale without a request", request{Verb: verbScale, Query: &control.Query{}}, nil, "another language"},
		{"attend without a pod", request{Verb: verbAttend}, nil, "another language"},
		{"connect without a port", request{Verb: verbConnect, PodPort: &PodPort{Pod: "web"}}, nil, "another language"},
		{"status with a pod", request{Verb: verbStatus, PodPort: &PodPort{Pod: "web"}}, nil, "another language"},
		{"status with streams", request{Verb: verbStatus}, []*os.File{os.Stdin}, "another language"},
		{"too many files", request{Verb: verbStatus}, []*os.File{os.Stdin, os.Stdin, os.Stdin, os.Stdin}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := pair(t)
			if err := sendRequest(client, tt.req, tt.files...); err != nil {
				t.Fatal(err)
			}
			_, files, err := receiveRequest(server)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			for _, f := range files {
				f.Close()
			}
		})
	}
	client, server := pair(t)
	if err := writeFrame(client, request{Version: 9, Verb: verbStatus}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := receiveRequest(server); err == nil || !strings.Contains(err.Error(), "version 1, not 9") {
		t.Errorf("got %v", err)
	}
}

func TestReadFrameShort(t *testing.T) {
	whole, err := encodeFrame(request{Version: 1, Verb: verbStatus})
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		var req request
		if err := readFrame(bytes.NewReader(whole[:n]), &req); err == nil {
			t.Errorf("%d of %d bytes: got %+v", n, len(whole), req)
		}
	}
	long := binary.BigEndian.AppendUint32(nil, maxFrame+1)
	if err := readFrame(io.MultiReader(bytes.NewReader(long), strings.NewReader("{}")), &request{}); !errors.Is(err, errProtocol) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, v := range []any{request{Version: 1, Verb: verbDown}, reply{Status: &Status{}}, signal{9}} {
		b, err := encodeFrame(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var req request
		if readFrame(bytes.NewReader(b), &req) != nil {
			return
		}
		again, err := encodeFrame(req)
		if err != nil {
			t.Fatal(err)
		}
		var back request
		if err := readFrame(bytes.NewReader(again), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(req, back); diff != "" {
			t.Errorf("-first +second\n%s", diff)
		}
	})
}
