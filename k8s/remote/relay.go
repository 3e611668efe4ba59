package remote

import (
	"errors"
	"io"
	"net"
)

// Relay is the other end of Dial: it joins the daemon's socket with standard input and output until either of them ends, and closes it.
// It may return while in is still being read.
func Relay(socket net.Conn, in io.Reader, out io.Writer) error {
	defer socket.Close()
	if _, err := io.WriteString(out, Greeting); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(socket, in)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(out, socket)
		ended <- err
	}()
	err := <-ended
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
