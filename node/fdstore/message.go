package fdstore

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/middleway-net/middleway/unixsock"
)

// A connection carries messages, JSON objects in one line each. Whoever gets one answers it with a line feed before the next is sent, so
// that descriptors and their names come together. A client begins with open, and gets what is kept by messages keep, the last of which is
// followed by done; from then on it sends. Another store begins with wait, and learns by the end of the connection that it may take the path.
const (
	// MaxName is the longest name of a descriptor, in bytes.
	MaxName    = 256
	maxBatch   = 32 // names of a message
	maxMessage = maxBatch*(6*MaxName+3) + 64
	patience   = 5 * time.Second // for one message and its answer: whoever was short of memory may have to read its program again
)

// The kinds of messages.
const (
	kindOpen = "open"
	kindWait = "wait"
	kindKeep = "keep" // with as many descriptors, which take the place of those with these names
	kindDrop = "drop" // close those with these names
	kindPing = "ping"
	kindDone = "done"
)

type message struct {
	Kind  string   `json:"kind"`
	Names []string `json:"names,omitempty"`
}

// decode reads a message that came with as many descriptors.
func decode(b []byte, fds int) (m message, err error) {
	if err := unixsock.Decode(b, &m); err != nil {
		return message{}, fmt.Errorf("what came is no message: %w; is the other side of another version?", err)
	}
	least, most, with := 0, 0, 0
	switch m.Kind {
	case kindKeep:
		least, most, with = 1, maxBatch, len(m.Names)
	case kindDrop:
		least, most = 1, maxBatch
	case kindOpen, kindWait, kindPing, kindDone:
	default:
		return message{}, fmt.Errorf("unknown message %q; is the other side of another version?", m.Kind)
	}
	switch {
	case len(m.Names) < least || len(m.Names) > most:
		return message{}, fmt.Errorf("message %s has %d names", m.Kind, len(m.Names))
	case slices.ContainsFunc(m.Names, func(name string) bool { return checkName(name) != nil }):
		return message{}, fmt.Errorf("message %s: a name is not of 1 to %d bytes", m.Kind, MaxName)
	case fds != with:
		return message{}, fmt.Errorf("message %s came with %d descriptors, want %d", m.Kind, fds, with)
	}
	return m, nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("the name %q is not of 1 to %d bytes", name, MaxName)
	}
	return nil
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

// receive waits for a message, with its descriptors if it is keep. Its reader acknowledges it.
func receive(conn *net.UnixConn) (m message, fds []int, err error) {
	r := unixsock.NewReader(conn, maxBatch)
	defer r.Close()
	b := make([]byte, 0, 512)
	for len(b) == 0 || b[len(b)-1] != '\n' {
		if len(b) >= maxMessage {
			return m, nil, fmt.Errorf("a message is longer than %d bytes", maxMessage)
		}
		b = slices.Grow(b, 1)
		n, err := r.Read(b[len(b):cap(b)])
		if err != nil {
			return m, nil, err
		}
		b = b[:len(b)+n]
	}
	fds = r.Take()
	if m, err = decode(b, len(fds)); err != nil {
		unixsock.Close(fds...)
		return message{}, nil, err
	}
	return m, fds, nil
}

// acknowledge answers a message that was received, after what it asks for was done.
func acknowledge(conn *net.UnixConn) error {
	_, err := conn.Write(answer)
	return err
}
