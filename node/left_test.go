package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/k8s/nodes"
)

// Nodes change all the time: what is left out of them is told when that has changed, however many reasons there are.
func TestTellLeft(t *testing.T) {
	var log bytes.Buffer
	n := &Node{log: slog.New(slog.NewTextHandler(&log, nil))}
	n.troubles.log = n.log
	address, other := nodes.Left{Node: "node-2", Why: "one address"}, nodes.Left{Node: "node-2", Why: "another one"}
	waits := nodes.Left{Node: "node-2", Why: "it has no range yet", Waits: true}
	for _, row := range []struct {
		left     []nodes.Left
		lines    int
		problems string
	}{
		{[]nodes.Left{address, other}, 1, "node node-2, or an address of it, is left out: one address; another one"},
		{[]nodes.Left{address, other}, 0, "node node-2, or an address of it, is left out: one address; another one"},
		{[]nodes.Left{other}, 1, "node node-2, or an address of it, is left out: another one"},
		{[]nodes.Left{waits}, 2, ""},
		{[]nodes.Left{waits}, 0, ""},
		{nil, 0, ""},
		{[]nodes.Left{address}, 1, "node node-2, or an address of it, is left out: one address"},
		{nil, 1, ""},
	} {
		log.Reset()
		n.tellLeft(row.left)
		var problems []string
		for _, p := range n.troubles.list() {
			problems = append(problems, p.Message)
		}
		if lines := strings.Count(log.String(), "\n"); lines != row.lines || strings.Join(problems, ", ") != row.problems {
			t.Errorf("%v: %d lines, want %d; problems %q, want %q\n%s", row.left, lines, row.lines, problems, row.problems, &log)
		}
	}
}
