package components

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells people which component is being built: one line each, which on a terminal moves while the build goes on.
type progress struct {
	w     io.Writer
	width int // columns of the terminal; 0 where w is none
	total int // components
}

func newProgress(w io.Writer, total int) *progress {
	return &progress{w: w, width: columns(w), total: total}
}

// columns returns the width of a terminal, and 0 for what is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return max(int(size.Col), 40) // a terminal of unknown size says 0
}

// A step is the line of one component.
type step struct {
	progress *progress
	title    string
	begin    time.Time
	stop     chan struct{}
	stopped  sync.WaitGroup

	mu    sync.Mutex
	doing string
}

// step begins the line of the component with this number, which counts from 1.
func (p *progress) step(number int, name string) *step {
	s := &step{progress: p, title: fmt.Sprintf("%2d of %d  %s", number, p.total, name), begin: time.Now(), stop: make(chan struct{})}
	if p.width == 0 {
		fmt.Fprintf(p.w, "%s: ", s.title)
		return s
	}
	s.stopped.Go(s.move)
	return s
}

// move draws the line anew until the step ends.
func (s *step) move() {
	again := time.NewTicker(250 * time.Millisecond)
	defer again.Stop()
	for {
		s.draw()
		select {
		case <-s.stop:
			return
		case <-again.C:
		}
	}
}

func (s *step) draw() {
	s.mu.Lock()
	doing := s.doing
	s.mu.Unlock()
	line := []rune(fmt.Sprintf("%s: %d s", s.title, int(s.took().Seconds())))
	if doing != "" {
		line = append(line, []rune(", "+doing)...)
	}
	fmt.Fprintf(s.progress.w, "\r\x1b[K%s", string(line[:min(len(line), s.progress.width-1)]))
}

// say changes what the moving line says is being done.
func (s *step) say(doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing = doing
}

func (s *step) took() time.Duration { return time.Since(s.begin) }

// end closes the line with the result.
func (s *step) end(result string) {
	if s.progress.width > 0 {
		close(s.stop)
		s.stopped.Wait()
		fmt.Fprintf(s.progress.w, "\r\x1b[K%s: ", s.title)
	}
	fmt.Fprintln(s.progress.w, result)
}

// compilation is what go build -v prints: it goes to a log, and the step says which package is next.
type compilation struct {
	log       io.Writer
	step      *step
	rest      string // of a line that is not complete
	packages  int
	complaint string // the last line that is no package
}

func (c *compilation) Write(b []byte) (int, error) {
	lines := strings.Split(c.rest+string(b), "\n")
	c.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		if strings.ContainsAny(line, " \t") { // as no package's path does
			c.complaint = strings.TrimSpace(line)
		} else if line != "" {
			c.packages++
			c.step.say(fmt.Sprintf("%d packages, %s", c.packages, line))
		}
	}
	return c.log.Write(b)
}

// size writes bytes as people read them.
func size(bytes int64) string {
	if bytes < 1e6 {
		return fmt.Sprintf("%d kB", (bytes+999)/1000)
	}
	return fmt.Sprintf("%d MB", (bytes+500_000)/1_000_000)
}
