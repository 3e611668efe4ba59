package perf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// connectAgain connects, asks once and closes, again and again. It closes with a reset (SO_LINGER of 0 s): an ordinary close
// leaves a port in TIME_WAIT for a minute, and the 28,000 ports that there are would be gone within seconds.
func connectAgain(to []*address, t Test, took *timings, stop *atomic.Bool) error {
	b := newBuffer(t.Size)
	for !stop.Load() {
		start := time.Now()
		if err := askOnce(oneOf(to), t, b); err != nil {
			if !errors.Is(err, unix.ETIMEDOUT) && !errors.Is(err, unix.EAGAIN) {
				return err
			}
			took.lose()
			continue
		}
		took.add(time.Since(start))
	}
	return nil
}

func askOnce(to *address, t Test, b []byte) error {
	fd, err := dial(to, false, t.Congestion)
	if err != nil {
		return err
	}
	defer closeSocket(fd)
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = write(fd, b)
	}
	if err == nil {
		err = readFull(fd, b)
	}
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}

// answerConnections accepts connections, answers each once and waits for its end, so that the client's reset is what closes it.
func answerConnections(listener int, t Test, stop *atomic.Bool) error {
	b := newBuffer(t.Size)
	for {
		fd, err := accept(listener)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ECONNABORTED):
			if stop.Load() {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		answerOnce(fd, b)
	}
}

// answerOnce leaves it to the client to notice what goes wrong.
func answerOnce(fd int, b []byte) {
	defer closeSocket(fd)
	if setPatience(fd, lostAfter) != nil || readFull(fd, b) != nil || write(fd, b) != nil {
		return
	}
	_, _ = read(fd, b)
}
