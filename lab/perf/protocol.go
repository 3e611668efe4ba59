package perf

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	strictjson "sigs.k8s.io/json" // unlike encoding/json, fields have one spelling, and none is there twice
)

// maxMessage is the greatest length of a message in bytes, its end of line included.
const maxMessage = 4096

// tokenSize is the length of a token in bytes; on control it is in hexadecimal. By it the server knows the streams of a test.
const tokenSize = 16

// message is what goes over control. Exactly one of its fields is set.
type message struct {
	Open     *Test     `json:"open,omitempty"`
	Accepted *accepted `json:"accepted,omitempty"`
	Ready    *struct{} `json:"ready,omitempty"`
	Start    *struct{} `json:"start,omitempty"`
	Sample   *sample   `json:"sample,omitempty"`
	Done     *struct{} `json:"done,omitempty"`
	Error    *string   `json:"error,omitempty"`
}

// accepted says where the streams of a test go.
type accepted struct {
	Ports []uint16 `json:"ports"` // one for each stream of datagrams; else one for all
	Token string   `json:"token"`
}

// sample is what the server has counted since the test was accepted.
type sample struct {
	At      time.Duration `json:"atNs"`    // since the start
	Bytes   int64         `json:"bytes"`   // of payload that were received
	Packets int64         `json:"packets"` // datagrams that were received
	Sent    int64         `json:"sent"`    // datagrams that the client had sent when it sent the latest of those
	CPU     time.Duration `json:"cpuNs"`   // processor time of the server's process
	Last    bool          `json:"last"`
}

// check returns what is wrong with a message that was received.
func (m *message) check() error {
	set := 0
	for _, there := range []bool{m.Open != nil, m.Accepted != nil, m.Ready != nil, m.Start != nil, m.Sample != nil, m.Done != nil, m.Error != nil} {
		if there {
			set++
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("%d things in one message, want one", set)
	case m.Open != nil:
		return m.Open.Check()
	case m.Accepted != nil:
		a := m.Accepted
		if token, err := hex.DecodeString(a.Token); err != nil || len(token) != tokenSize {
			return fmt.Errorf("token %q, want %d bytes in hexadecimal", a.Token, tokenSize)
		}
		if len(a.Ports) == 0 || len(a.Ports) > MaxStreams || slices.Contains(a.Ports, 0) {
			return fmt.Errorf("ports %v, want one for each stream", a.Ports)
		}
	case m.Sample != nil:
		if s := m.Sample; s.At < 0 || s.Bytes < 0 || s.Packets < 0 || s.Sent < 0 || s.CPU < 0 {
			return errors.New("a sample with negative numbers")
		}
	}
	return nil
}

// parseMessage reads a line, without its end.
func parseMessage(line []byte) (*message, error) {
	var m message
	strict, err := strictjson.UnmarshalStrict(line, &m)
	err = errors.Join(append(strict, err)...)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	return &m, nil
}

// control is one end of a control connection.
type control struct {
	conn  net.Conn
	lines *bufio.Reader
}

func newControl(c net.Conn) *control {
	return &control{c, bufio.NewReaderSize(c, maxMessage)}
}

func (c *control) send(m message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.conn.Write(append(line, '\n'))
	return err
}

// receive returns the next message. What the other end says is wrong is an error.
func (c *control) receive() (*message, error) {
	line, err := c.lines.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("message: longer than %d bytes: is a `middleway tool perf` at the other end?", maxMessage)
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	m, err := parseMessage(line[:len(line)-1])
	if err == nil && m.Error != nil {
		return nil, fmt.Errorf("the server says: %s", *m.Error)
	}
	return m, err
}
