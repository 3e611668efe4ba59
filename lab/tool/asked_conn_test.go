package tool

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Who asks one of several addresses is answered from that one: 127.0.0.2 is not the one that the way back to 127.0.0.1 prefers.
func TestAnswersFromWhereItWasAsked(t *testing.T) {
	for _, tt := range []struct{ listen, ask string }{
		{"0.0.0.0:0", "127.0.0.2"}, {":0", "127.0.0.2"}, {":0", "127.0.0.1"}, {"127.0.0.3:0", "127.0.0.3"}, {"[::]:0", "::1"},
	} {
		c, err := ListenDatagrams(tt.listen)
		if err != nil {
			if tt.ask == "::1" {
				t.Skip("this machine has no IPv6")
			}
			t.Fatal(err)
		}
		echo := EchoDatagrams(c)
		_, port, err := net.SplitHostPort(c.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("udp", net.JoinHostPort(tt.ask, port))
		if errors.Is(err, unix.EAFNOSUPPORT) {
			echo.Close()
			t.Skip("this machine has no IPv6")
		}
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, err = conn.Write([]byte("hello")); err == nil {
			_, err = conn.Read(buf) // of a connected socket: from nobody else
		}
		if err != nil || string(buf[:5]) != "hello" {
			t.Errorf("listening at %s, asked at %s: got %q, %v", tt.listen, tt.ask, buf, err)
		}
		conn.Close()
		if err := echo.Close(); err != nil {
			t.Error(err)
		}
	}
}
