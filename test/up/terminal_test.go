package up

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo-terminal of 80 columns.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	must(err)
	must(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(err)
	must(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	must(unix.SetNonblock(fd, true)) // so that closing it ends a waiting read
	master = os.NewFile(uintptr(fd), "master")
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(err)
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

// At a terminal the command has one of its own, of the same size, with job control; Ctrl-C reaches the command, and the user's
// terminal is as it was afterwards.
func TestExecTerminal(t *testing.T) {
	p := newPlayground(t)
	p.up(pods("web: sleep 1000"), "--nodes", "1")
	master, slave := openTerminal(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	p.must2(err)

	cmd := p.command("exec", "web", "--", "sh", "-c", "stty size; echo $TERM; test -t 0 && test -t 1 && echo terminal; exec sleep 1000")
	cmd.Env = append(os.Environ(), "TERM=vt100")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.must2(cmd.Start())
	var mu sync.Mutex
	var out strings.Builder
	go func() {
		b := make([]byte, 1024)
		for {
			n, err := master.Read(b)
			mu.Lock()
			out.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
	p.eventually("the command speaks", func() bool { return strings.Contains(said(), "terminal") })
	if !strings.Contains(said(), "24 80") || !strings.Contains(said(), "vt100") {
		t.Errorf("got %q, want 24 80 and vt100", said())
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	_, err = master.WriteString("\x03")
	p.must2(err)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatalf("Ctrl-C did not end it: %q", said())
	}
	if got := cmd.ProcessState.ExitCode(); got != 128+int(syscall.SIGINT) {
		t.Errorf("exit code %d, want %d: %q", got, 128+int(syscall.SIGINT), said())
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	p.must2(err)
	if *after != *before {
		t.Errorf("the terminal is %+v, was %+v", after, before)
	}
}
