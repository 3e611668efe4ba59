package playground

import (
	"fmt"
	"io"
	"os"
	ossignal "os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal between the user's terminal and a command in a pod: the command cannot take the user's own,
// which belongs to this process's session.
//
//	user's terminal (raw) ◄──copy──► master │ slave ◄── the command: job control, Ctrl-C, window size
type terminal struct {
	master, slave *os.File
	before        *unix.Termios // of the user's terminal
	resized       chan os.Signal
	copied        sync.WaitGroup // the command's output
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// openTerminal makes the user's terminal raw and copies between it and a new pseudo-terminal until close.
func openTerminal() (*terminal, error) {
	t := &terminal{resized: make(chan os.Signal, 1)}
	if err := t.open(); err != nil {
		t.closeFiles()
		return nil, fmt.Errorf("make a terminal for the command: %w", err)
	}
	t.resize()
	ossignal.Notify(t.resized, syscall.SIGWINCH)
	go func() {
		for range t.resized {
			t.resize()
		}
	}()
	go func() { _, _ = io.Copy(t.master, os.Stdin) }() // it ends with this process
	t.copied.Go(func() { _, _ = io.Copy(os.Stdout, t.master) })
	return t, nil
}

func (t *terminal) open() (err error) {
	if t.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(t.master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	number, err := unix.IoctlGetInt(int(t.master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if t.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if t.before, err = unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		return err
	}
	raw := *t.before // as cfmakeraw(3) does it
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &raw)
}

// streams are for the command.
func (t *terminal) streams() [streams]*os.File { return [streams]*os.File{t.slave, t.slave, t.slave} }

// resize gives the command's terminal the size of the user's.
func (t *terminal) resize() {
	if size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size) // the command keeps the old one
	}
}

// lastOutput bounds the wait for the command's last output, where something that it left behind keeps the terminal open.
const lastOutput = 500 * time.Millisecond

// close passes on the last output and gives the user's terminal back as it was.
func (t *terminal) close() {
	ossignal.Stop(t.resized)
	close(t.resized)
	t.slave.Close()
	done := make(chan struct{})
	go func() {
		t.copied.Wait() // the master reads an error when no slave is open any more
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(lastOutput):
	}
	_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, t.before) // nothing else can be done
	t.closeFiles()
}

func (t *terminal) closeFiles() {
	for _, f := range []*os.File{t.master, t.slave} {
		if f != nil {
			f.Close()
		}
	}
}
