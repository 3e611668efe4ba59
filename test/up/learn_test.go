package up

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The lessons are true: their commands, typed one after another into a shell, print what stands there.
func TestLessons(t *testing.T) {
	lessons, err := filepath.Glob("../../docs/learn/[0-9]*.md")
	if err != nil || len(lessons) < 3 {
		t.Fatalf("%v, %v", lessons, err)
	}
	for _, file := range lessons {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".md"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			commands := lessonCommands(string(text))
			for _, c := range commands {
				if needs := missingProgram(c.text); needs != "" {
					t.Skipf("this machine has no %s, with which the lesson changes what later commands see: %s", needs, c.text)
				}
			}
			sh := newLearner(t)
			for _, c := range commands {
				got := sh.run(c.text)
				if !sameOutput(sh.stable(c.output), sh.stable(got)) {
					t.Errorf("$ %s\nprinted\n%s\nthe lesson says\n%s", c.text, got, c.output)
				}
			}
		})
	}
}

// lessonCommand is one of a lesson, with what it prints; "..." in it stands for any words or lines.
type lessonCommand struct{ text, output string }

// lessonCommands finds the blocks marked "console", in which a command follows "$ " and its further lines "> ".
func lessonCommands(text string) (all []lessonCommand) {
	for i, block := range strings.Split(text, "```") {
		block, console := strings.CutPrefix(block, "console\n")
		if i%2 == 0 || !console {
			continue
		}
		for line := range strings.Lines(block) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				all = append(all, lessonCommand{text: command})
				continue
			}
			last := &all[len(all)-1]
			if more, ok := strings.CutPrefix(line, "> "); ok {
				last.text += more
			} else {
				last.output += line
			}
		}
	}
	return all
}

var inPod = regexp.MustCompile(` -- ([a-z]+)`)

// missingProgram returns the program that a command runs in a pod and that this machine does not have.
func missingProgram(command string) string {
	m := inPod.FindStringSubmatch(command)
	if m == nil || m[1] == "middleway" {
		return ""
	}
	if _, err := exec.LookPath(m[1]); err == nil {
		return ""
	}
	return m[1]
}

// learner is a shell with a home of its own.
type learner struct {
	t    *testing.T
	home string
	in   io.Writer
	out  *bufio.Reader
}

const endOfOutput = "-- end of output --"

func newLearner(t *testing.T) *learner {
	t.Helper()
	home, err := os.MkdirTemp("", "mw-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(docs, filepath.Join(home, "docs")); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(home, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(bin, "middleway")); err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh")
	sh.Dir = home
	sh.Env = append(os.Environ(), "HOME="+home, "PATH="+bin+":"+os.Getenv("PATH"), "MIDDLEWAY_UP_DIR=", "LC_ALL=C.UTF-8") // else lines are drawn with ASCII
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sh.Stdout, sh.Stderr = write, write
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	timeout := time.AfterFunc(3*time.Minute, func() { _ = sh.Process.Kill(); read.Close() })
	l := &learner{t: t, home: home, in: in, out: bufio.NewReader(read)}
	t.Cleanup(func() {
		timeout.Stop()
		down := exec.Command(program, "down", "--dir", filepath.Join(home, "lessons")) // where a lesson failed half-way
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("down: %v %s", err, out)
		}
		in.Close()
		_ = sh.Wait() // its exit code is that of the last command
		read.Close()
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return l
}

// run types a command and returns what it prints, both streams.
func (l *learner) run(command string) string {
	l.t.Helper()
	fmt.Fprintf(l.in, "{ %s\n} </dev/null; echo '%s'\n", strings.TrimRight(command, "\n"), endOfOutput)
	var output strings.Builder
	for {
		line, err := l.out.ReadString('\n')
		if err != nil {
			l.t.Fatalf("$ %s\n%s\n%v", command, &output, err)
		}
		if strings.HasSuffix(line, endOfOutput+"\n") {
			return output.String() + strings.TrimSuffix(line, endOfOutput+"\n")
		}
		output.WriteString(line)
	}
}

var (
	ipv6       = regexp.MustCompile(`,?\[?\b(fd00|fe80)[0-9a-f:]*:[0-9a-f:]*(/[0-9]+)?`)
	duration   = regexp.MustCompile(`\b([0-9.]+(ns|µs|ms|s|m|h))+\b`)
	ephemeral  = regexp.MustCompile(`:[3-6][0-9]{4}\b`)
	roundTrips = regexp.MustCompile(`[0-9./]+ ms\b`)
	number     = regexp.MustCompile(`\b[0-9]{3,}\b`)
)

// constant are the numbers that mean something.
var constant = []string{"1400", "1450", "1500", "8080", "8472", "9000"}

// stable returns the lines of an output without what differs from run to run or from machine to machine: times, process ids,
// ports of clients, home directories, IPv6.
func (l *learner) stable(output string) (lines []string) {
	output = strings.ReplaceAll(output, l.home, "/home/you")
	output = ipv6.ReplaceAllString(output, "")
	output = roundTrips.ReplaceAllString(output, "TIME")
	output = duration.ReplaceAllString(output, "TIME")
	output = ephemeral.ReplaceAllString(output, ":PORT")
	for line := range strings.Lines(output) {
		line = strings.Join(strings.Fields(line), " ")
		words := strings.Split(line, " ")
		for i, w := range words {
			if _, err := strconv.Atoi(strings.TrimRight(w, ",")); err == nil && number.MatchString(w) && !slices.Contains(constant, strings.TrimRight(w, ",")) {
				words[i] = "NUMBER"
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

// sameOutput compares lines; "..." among those wanted stands for any.
func sameOutput(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "..." {
		return sameOutput(want[1:], got) || len(got) > 0 && sameOutput(want, got[1:])
	}
	return len(got) > 0 && sameLine(want[0], got[0]) && sameOutput(want[1:], got[1:])
}

// sameLine compares a line; "..." within the one wanted stands for any words.
func sameLine(want, got string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, ".*") + "$").MatchString(got)
}
