package logs

import (
	"bytes"
	"errors"
	"time"
)

// Stream is one of the two that a container prints to.
type Stream string

// The streams, as they are called in files.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// maxContent is the most that an entry has of a line, in bytes, as containerd has it.
const maxContent = 16 << 10

// timeFormat is RFC 3339 with all nine digits, so that entries sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// maxEntry bounds an entry, in bytes: time, stream, tag and content, each with what ends it.
const maxEntry = len(timeFormat) + 1 + len(Stdout) + 1 + len("P") + 1 + maxContent + 1

// An entry is a line, or a part of one, that a container printed
// (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md):
//
//	2026-11-23T04:45:42.123456789Z stdout F the line
//
// The tag is F for a line or the end of one, P for a part that goes on in the next entry of the stream.
type entry struct {
	time    []byte // as it is written
	partial bool
	content []byte // without the newline
}

// appendEntries appends what was printed at a time, cut into entries.
func appendEntries(b []byte, at []byte, s Stream, printed []byte) []byte {
	for len(printed) > 0 {
		piece, rest, whole := bytes.Cut(printed, newline)
		if len(piece) > maxContent {
			piece, rest, whole = printed[:maxContent], printed[maxContent:], false
		}
		b = append(append(append(b, at...), ' '), s...)
		if whole {
			b = append(b, " F "...)
		} else {
			b = append(b, " P "...)
		}
		b = append(append(b, piece...), '\n')
		printed = rest
	}
	return b
}

var newline = []byte{'\n'}

// errEntry is the error of a file that something else has written to.
var errEntry = errors.New("the file is no log of a container any more")

// parseEntry reads an entry without its newline.
func parseEntry(b []byte) (entry, error) {
	at, rest, _ := bytes.Cut(b, []byte{' '})
	stream, rest, _ := bytes.Cut(rest, []byte{' '})
	tag, content, ok := bytes.Cut(rest, []byte{' '})
	if !ok || Stream(stream) != Stdout && Stream(stream) != Stderr || len(tag) != 1 || tag[0] != 'F' && tag[0] != 'P' {
		return entry{}, errEntry
	}
	if _, err := time.Parse(time.RFC3339Nano, string(at)); err != nil {
		return entry{}, errEntry
	}
	return entry{time: at, partial: tag[0] == 'P', content: content}, nil
}
