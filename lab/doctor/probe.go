package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// place is where something is tried.
type place int

const (
	here     place = iota // the caller's namespaces
	inside                // fresh namespaces
	starting              // the attempt to make those
	ordinary              // the process of an ordinary user
)

// probe is one thing to try.
type probe struct {
	name, group, title string
	place              place
	// try tries it and returns what was seen. An error of lab.ErrForbidden or problem brings its own remedy.
	try func() (detail string, err error)
	// after is the name of the probe that must work for this one to mean anything; "" for none but, inside, the namespaces there.
	after string
	// without says what middleway does without it.
	without string
	// remedy is what to do, where an error brings none.
	remedy string
}

// outcome is how a probe ended. It travels from the examination's processes as a line of JSON.
type outcome struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"` // "": the probe's
}

// problem is an error that knows what to do.
type problem struct {
	err    error
	remedy string
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// errUntried is the error, by errors.Is, of a probe that could not try.
var errUntried = errors.New("not tried")

// trialPatience bounds one trial. Each takes milliseconds, and on a very busy machine hundreds of them.
const trialPatience = 5 * time.Second

// judge makes an outcome of what a trial returned.
func judge(name, detail string, err error) outcome {
	if err == nil {
		return outcome{Name: name, State: Works, Detail: detail}
	}
	o := outcome{Name: name, State: Missing, Detail: plain(err)}
	var p *problem
	switch cause, remedy, forbidden := lab.Remedy(err); {
	case errors.Is(err, errUntried):
		o.State = Unknown
	case forbidden:
		o.Detail, o.Remedy = cause, remedy
	case errors.As(err, &p):
		o.Remedy = p.remedy
	}
	return o
}

// plain is an error's text on one line.
func plain(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// attempt tries one thing, for no longer than patience. A trial that hangs keeps its thread until this process ends.
func (p *probe) attempt(patience time.Duration) outcome {
	done := make(chan outcome, 1)
	go func() {
		detail, err := p.try()
		done <- judge(p.name, detail, err)
	}()
	select {
	case o := <-done:
		return o
	case <-time.After(patience):
		return outcome{Name: p.name, State: Unknown, Detail: fmt.Sprintf("no answer within %v", patience)}
	}
}

// missingInKernel says of an error by which a kernel tells that it does not have something what it is that it lacks.
func missingInKernel(err error, what string) error {
	for _, is := range []error{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOPROTOOPT, unix.ENOSYS, unix.ENODEV} {
		if errors.Is(err, is) {
			return fmt.Errorf("this kernel has no %s: %w", what, err)
		}
	}
	return err
}

// setting reads a sysctl for a message; "" where there is none.
func setting(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(b))
}
