package playground

import (
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab/control"
)

// Of two pods with one host port the second one waits for the end of the first, from the cluster's start on.
func TestHostPortWaits(t *testing.T) {
	const ports = `containers: [{name: main, command: [sleep, "1000"], ports: [{containerPort: 80, hostPort: 8080}]}]`
	r := run(t, spec("a", ports, "terminationGracePeriodSeconds: 0"), spec("b", ports, "terminationGracePeriodSeconds: 0"))
	if r.Pod("default", "a") == nil || r.Pod("default", "b") != nil {
		t.Errorf("a runs: %v, b has a node: %v", r.Pod("default", "a") != nil, r.Pod("default", "b") != nil)
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not within 30 s: %s\n%s", what, r.log)
			}
		}
	}
	const waits = "default/b: waits for hostPort TCP 8080: no node has it free\n"
	await("it is told why b waits", func() bool { return strings.Contains(r.log.String(), waits) })
	err := r.control.Delete(t.Context(), control.DeleteRequest{Query: &control.Query{Kind: "pods", Namespace: "default", Names: []string{"a"}}}, func(control.Ref) {})
	if err != nil {
		t.Fatal(err)
	}
	await("b runs", func() bool { p := r.Pod("default", "b"); return p != nil && p.Status().Phase == "Running" })
	if n := strings.Count(r.log.String(), waits); n != 1 {
		t.Errorf("it was told %d times:\n%s", n, r.log)
	}
}
