package fdstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/middleway-net/middleway/unixsock"
)

// A connection carries messages, JSON objects in one line each. Whoever gets one answers it with a line feed before the next is sent, so
// that a descriptor and its message come together. First the store sends keep for all it has, and done; from then on the client sends.
const (
	// MaxName is the longest name of a descriptor, in bytes.
	MaxName    = 256
	maxMessage = 8*MaxName + 64 // JSON makes up to six bytes of one
	patience   = time.Second    // for one message and its answer
)

// The kinds of messages.
const (
	kindKeep  = "keep"  // with a descriptor, which takes the place of one with that name
	kindDrop  = "drop"  // close the descriptor with that name
	kindReset = "reset" // close all
	kindPing  = "ping"
	kindDone  = "done"
)

type message struct {
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"`
}

// decode reads a message that came with as many descriptors.
func decode(b []byte, fds int) (m message, err error) {
	if err := unixsock.Decode(b, &m); err != nil {
		return message{}, fmt.Errorf("what came is no message: %w; is the other side of another version?", err)
	}
	named, with := m.Kind == kindKeep || m.Kind == kindDrop, 0
	switch m.Kind {
	case kindKeep:
		with = 1
	case kindDrop, kindReset, kindPing, kindDone:
	default:
		return message{}, fmt.Errorf("unknown message %q; is the other side of another version?", m.Kind)
	}
	switch {
	case named != (m.Name != "") || len(m.Name) > MaxName:
		return message{}, fmt.Errorf("message %s has a name of %d bytes", m.Kind, len(m.Name))
	case fds != with:
		return message{}, fmt.Errorf("message %s came with %d descriptors, want %d", m.Kind, fds, with)
	}
	return m, nil
}

var answer = []byte{'\n'}

// send sends a message, and returns once it was answered.
func send(conn *net.UnixConn, m message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := unixsock.Send(conn, append(b, '\n'), fds...); err != nil {
		return fmt.Errorf("send %s: %w", m.Kind, err)
	}
	got := make([]byte, len(answer))
	if _, err := conn.Read(got); err != nil {
		return fmt.Errorf("wait for the answer to %s: %w", m.Kind, err)
	}
	return nil
}

// receive waits for a message, with its descriptor if it is keep, and answers it.
func receive(conn *net.UnixConn) (m message, fd int, err error) {
	r := unixsock.NewReader(conn, 1)
	defer r.Close()
	b := make([]byte, 0, maxMessage)
	for !bytes.HasSuffix(b, []byte{'\n'}) {
		if len(b) == cap(b) {
			return m, -1, fmt.Errorf("a message is longer than %d bytes", maxMessage)
		}
		n, err := r.Read(b[len(b):cap(b)])
		if err != nil {
			return m, -1, err
		}
		b = b[:len(b)+n]
	}
	fds := r.Take()
	if m, err = decode(b, len(fds)); err == nil {
		_, err = conn.Write(answer)
	}
	if err != nil {
		unixsock.Close(fds...)
		return message{}, -1, err
	}
	if len(fds) == 0 {
		return m, -1, nil
	}
	return m, fds[0], nil
}
