package bench

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A stranger's contestant works as README.md has it: as a file beside the others, with nothing else changed.
func TestExample(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command to build the example with")
	}
	join(t, Kernel{}, SameNode) // skips where the kernel has no veth, which the example needs
	dir := t.TempDir()
	example := filepath.Join(dir, "cable.go")
	write(t, example, exampleOf(t))
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "cable.go"): example}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	program := filepath.Join(dir, "bench.test")
	run(t, goTool, "test", "-c", "-trimpath", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	out := run(t, program, "-test.v", "-test.run", "^TestContestantsCarryData$/^(same|cross)$/^cable$", "-test.bench", "^BenchmarkConnections$/^place=same$/^path=cable$",
		"-test.benchtime", "1x", "-rounds", "1", "-round-time", "20ms")
	for _, want := range []string{"--- PASS: TestContestantsCarryData/same/cable", "--- PASS: TestContestantsCarryData/cross/cable", "BenchmarkConnections/place=same/path=cable", " x-kernel"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

// exampleOf returns the Go file that README.md shows.
func exampleOf(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```go\npackage bench\n")
	code, _, ended := strings.Cut(rest, "```\n")
	if !found || !ended {
		t.Fatal("README.md shows no Go file of package bench")
	}
	return "package bench\n" + code
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}
