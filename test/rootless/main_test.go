package rootless

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

func TestMain(m *testing.M) {
	lab.RegisterRole(roleUser, becomeUser)
	lab.RegisterRole(roleNode, runNode)
	lab.RegisterRole(roleRelay, relay)
	lab.Main(tests{m})
}

// tests removes what the tests built together, since lab.Main does not return.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	defer func() { os.RemoveAll(program.dir) }()
	return t.m.Run()
}

// program is middleway, built once for all tests.
var program struct {
	once sync.Once
	dir  string
	err  error
}

// middleway returns the path of the program; MIDDLEWAY_PROGRAM names one that is built.
func middleway(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("MIDDLEWAY_PROGRAM"); path != "" {
		return path
	}
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "mw-rootless-"); program.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program.dir, "../../cmd/middleway").CombinedOutput()
		if err != nil {
			program.err = fmt.Errorf("build middleway: %w\n%s", err, out)
		}
	})
	if program.err != nil {
		t.Fatal(program.err)
	}
	return filepath.Join(program.dir, "middleway")
}

// eventually fails the test if ok does not become true within the time.
func eventually(t testing.TB, within time.Duration, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
	}
}
