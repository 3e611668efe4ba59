package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// An attempt that fails is one: it leaves events in the directory that is watched, and the next one has to wait.
func TestConflistAttemptFails(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.troubles.log = n.log
	n.config.CNI.Conflist = filepath.Join(t.TempDir(), "10-middleway.conflist")
	if err := os.MkdirAll(filepath.Join(n.config.CNI.Conflist, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !n.writeConflist() {
		t.Error("the first attempt is none")
	}
	first := n.troubles.list()
	if len(first) != 1 || first[0].Reason != reasonConflist {
		t.Fatalf("got %+v", first)
	}
	if n.writeConflist(); n.troubles.list()[0] != first[0] {
		t.Errorf("the same failure is told as another one: %q after %q", n.troubles.list()[0].Message, first[0].Message)
	}
	if err := os.RemoveAll(n.config.CNI.Conflist); err != nil {
		t.Fatal(err)
	}
	if !n.writeConflist() || len(n.troubles.list()) != 0 {
		t.Errorf("got %+v when nothing is in the way any more", n.troubles.list())
	}
	if n.writeConflist() {
		t.Error("a file that is as it should be is written again")
	}
}
