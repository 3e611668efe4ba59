package playground

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/unixsock"
)

// The control socket speaks frames: four bytes of length, most significant first, and so many bytes of JSON. A client sends a
// request, for exec together with its three standard streams (SCM_RIGHTS), and the server answers with one reply or several.
// Whatever is not understood ends the connection.
const (
	// protocolVersion changes when an old client would misunderstand.
	protocolVersion = 1
	// maxFrame bounds a frame, in bytes: more than what Linux takes as arguments of a program, and a status of thousands of pods.
	maxFrame = 8 << 20
)

// verb is what a client wants.
type verb string

const (
	verbStatus  verb = "status"  // one reply
	verbDown    verb = "down"    // one reply, when everything has been taken down
	verbLogs    verb = "logs"    // replies with Data, the last one with End
	verbExec    verb = "exec"    // one reply when the command runs, one when it has ended; the client may send signals
	verbList    verb = "list"    // replies with Objects, the last one with End
	verbWatch   verb = "watch"   // replies with Objects and Events, until the client goes
	verbApply   verb = "apply"   // one reply with Applied
	verbDelete  verb = "delete"  // replies with Refs, the last one with End
	verbScale   verb = "scale"   // replies with Refs, the last one with End
	verbAttend  verb = "attend"  // one reply, when the pod has ended
	verbConnect verb = "connect" // one reply, with a connection (SCM_RIGHTS) unless there is an Error
)

type request struct {
	Version int          `json:"version"`
	Verb    verb         `json:"verb"`
	Exec    *ExecRequest `json:"exec,omitempty"`
	Logs    *LogsRequest `json:"logs,omitempty"`
	PodPort *PodPort     `json:"podPort,omitempty"` // of attend and connect

	Query  *control.Query         `json:"query,omitempty"` // of list and watch
	Apply  *control.ApplyRequest  `json:"apply,omitempty"`
	Delete *control.DeleteRequest `json:"delete,omitempty"`
	Scale  *control.ScaleRequest  `json:"scale,omitempty"`
}

// ExecRequest is a command for a pod.
type ExecRequest struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container,omitempty"` // default the first
	Command   []string `json:"command"`
	Terminal  string   `json:"terminal,omitempty"` // $TERM, if standard input is a terminal that is to control the command
}

type reply struct {
	Version int     `json:"version"`
	Error   string  `json:"error,omitempty"`
	Status  *Status `json:"status,omitempty"`
	Exit    *int    `json:"exit,omitempty"` // exec: the command has ended with this code, or could not be run (126, 127)
	Note    string  `json:"note,omitempty"` // logs: for standard error
	Data    []byte  `json:"data,omitempty"` // logs: for standard output
	End     bool    `json:"end,omitempty"`  // there is no more

	Objects []json.RawMessage    `json:"objects,omitempty"`
	Events  []control.EventType  `json:"events,omitempty"` // watch: what happened to each of Objects
	Applied *control.ApplyResult `json:"applied,omitempty"`
	Refs    []control.Ref        `json:"refs,omitempty"`
	Failure *metav1.Status       `json:"failure,omitempty"` // with Error: what the control plane has refused
}

// signal is what a client sends while its command runs.
type signal struct {
	Signal int `json:"signal"`
}

// errProtocol is the error of a frame that is none.
var errProtocol = errors.New("the control connection's other end speaks another language; are both of the same version of middleway?")

// writeFrame sends a value.
func writeFrame(w io.Writer, v any) error {
	frame, err := encodeFrame(v)
	if err != nil {
		return err
	}
	_, err = w.Write(frame)
	return err
}

func encodeFrame(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > maxFrame {
		return nil, fmt.Errorf("%d bytes are more than the control connection takes (%d)", len(b), maxFrame)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), nil
}

// readFrame receives a value. Unknown fields are not errors, a wrong kind is.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return errProtocol
	}
	// Memory grows with what comes, not with what the length says.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(b) < int(n) || json.Unmarshal(b, v) != nil {
		return errProtocol
	}
	return nil
}

// sendRequest sends a request and hands over files with its first byte.
func sendRequest(conn *net.UnixConn, req request, files ...*os.File) error {
	req.Version = protocolVersion
	frame, err := encodeFrame(req)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	return unixsock.Send(conn, frame, fds...)
}

// receiveRequest receives a request and its files, which are the caller's.
func receiveRequest(conn *net.UnixConn) (req request, files []*os.File, err error) {
	r := unixsock.NewReader(conn, streams)
	defer r.Close()
	if err := readFrame(r, &req); err != nil {
		return request{}, nil, err
	}
	for _, fd := range r.Take() {
		files = append(files, os.NewFile(uintptr(fd), "stream"))
	}
	if err := req.check(len(files)); err != nil {
		closeFiles(files)
		return request{}, nil, err
	}
	return req, files, nil
}

// streams is how many files come with an exec.
const streams = 3

// check refuses a request that no client of this version sends.
func (r *request) check(files int) error {
	exec, pod := r.Verb == verbExec, r.Verb == verbAttend || r.Verb == verbConnect
	wanted := map[verb]bool{
		verbStatus: true, verbDown: true, verbLogs: r.Logs != nil, verbExec: exec && r.Exec != nil && len(r.Exec.Command) > 0,
		verbList: r.Query != nil, verbWatch: r.Query != nil, verbApply: r.Apply != nil, verbDelete: r.Delete != nil, verbScale: r.Scale != nil,
		verbAttend: r.PodPort != nil, verbConnect: r.PodPort != nil && r.PodPort.Port > 0,
	}
	switch {
	case r.Version != protocolVersion:
		return fmt.Errorf("this is the control connection's version %d, not %d; use the middleway that started the cluster", protocolVersion, r.Version)
	case !wanted[r.Verb], r.Verb != verbLogs && r.Logs != nil, !exec && r.Exec != nil, !pod && r.PodPort != nil,
		exec && files != streams, !exec && files > 0:
		return errProtocol
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
