package remote

import (
	"context"
	"errors"
	"io"
	"net"
)

// Relay is the other end of Dial: it joins the daemon's socket with standard input and output until the socket ends or the client does, and
// closes it. It may return while in is still being read.
func Relay(socket net.Conn, in io.Reader, out io.Writer) error {
	defer socket.Close()
	if _, err := io.WriteString(out, Greeting); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- attend(in, socket) }()
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

// Attended is the other end of Run: it returns a context that ends when the client does whose frames are in.
func Attended(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(attend(in, io.Discard)) }()
	return ctx, func() { cancel(nil) }
}
