package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// roleName is the role in which this program tries things for an examination. Its argument is the place.
const roleName = "doctor"

func init() { lab.RegisterRole(roleName, runRole) }

// The arguments of the role.
const (
	argHere     = "here"
	argInside   = "inside"
	argOrdinary = "ordinary"
	argUser     = "user"
	argHolder   = "holder"
	argOpener   = "opener"
	argNothing  = "nothing" // it starts and ends: its namespaces are what is tried
)

// ordinaryID is the user and the group that stand for an ordinary user where root asks: nobody's.
const ordinaryID = 65534

// examination is one run of all probes.
type examination struct {
	report   *Report
	progress func(Finding) // may be nil
	outcomes map[string]outcome
}

// run tries everything and notes the outcomes, until ctx ends.
func (x *examination) run(ctx context.Context) {
	outcomes := make(chan outcome)
	say := func(o outcome) {
		select {
		case outcomes <- o:
		case <-ctx.Done():
		}
	}
	var places sync.WaitGroup
	places.Go(func() { tryIn(ctx, argHere, say) })
	places.Go(func() { tryInside(ctx, !x.report.Capable, say) })
	places.Go(func() {
		_ = assist(ctx, lab.RoleCommand(ctx, roleName, argHolder), lab.FreshNamespaces(!x.report.Capable), say) // tryInside says why not
	})
	switch {
	case x.report.entered:
		places.Go(func() { say(outcome{Name: "user-namespace", State: Works, Detail: "this process is in one"}) })
	case x.report.Capable:
		places.Go(func() { tryIn(ctx, argOrdinary, say) })
	}
	done := make(chan struct{})
	go func() {
		places.Wait()
		close(done)
	}()
	for {
		select {
		case o := <-outcomes:
			x.note(o)
		case <-done:
			return
		case <-ctx.Done():
			select { // those that ctx ends do so now; one that hangs in the kernel is left to it
			case <-done:
			case <-time.After(time.Second):
			}
			return
		}
	}
}

// note keeps an outcome and tells of it.
func (x *examination) note(o outcome) {
	if _, known := x.outcomes[o.Name]; known {
		return
	}
	x.outcomes[o.Name] = o
	if p := probeNamed(o.Name); p != nil && x.progress != nil {
		x.progress(p.finding(o))
	}
}

// findings are the outcomes in the order of the probes. What nobody answered for is unknown, and what failed because something
// before it did is, too.
func (x *examination) findings() []Finding {
	all := []Finding{}
	for i := range probes {
		p := &probes[i]
		if p.place == ordinary && x.report.rootless() {
			continue
		}
		o, ok := x.outcomes[p.name]
		if !ok {
			o = outcome{Name: p.name, Detail: "no answer"}
		}
		if before := x.blocker(p); before != nil && o.State != Works {
			o = outcome{Name: p.name, Detail: "not tried, for lack of " + before.title}
		}
		all = append(all, p.finding(o))
	}
	return all
}

// blocker returns the first probe before p that does not work; what is tried inside comes after the way in.
func (x *examination) blocker(p *probe) *probe {
	earlier := []string{p.after}
	if p.place == inside {
		earlier = []string{"mount-namespace", p.after}
	}
	for _, name := range earlier {
		before := probeNamed(name)
		if before == nil || name == "user-namespace" && !x.report.rootless() { // root's namespaces need none
			continue
		}
		if first := x.blocker(before); first != nil {
			return first
		}
		if x.outcomes[name].State != Works {
			return before
		}
	}
	return nil
}

// finding makes a finding of an outcome.
func (p *probe) finding(o outcome) Finding {
	f := Finding{Name: p.name, Group: p.group, Title: p.title, State: o.State, Detail: o.Detail}
	if o.State == Works {
		return f
	}
	f.Without = p.without
	if o.State == Missing {
		if f.Remedy = o.Remedy; f.Remedy == "" {
			f.Remedy = p.remedy
		}
	}
	return f
}

func probeNamed(name string) *probe {
	for i := range probes {
		if probes[i].name == name {
			return &probes[i]
		}
	}
	return nil
}

// tryIn runs a process of the examination in the caller's namespaces, as the caller's user.
func tryIn(ctx context.Context, where string, say func(outcome)) {
	_ = assist(ctx, lab.RoleCommand(ctx, roleName, where), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, say)
}

// assist runs a process of the examination and says what it prints, until it ends. The error is that of starting it.
func assist(ctx context.Context, cmd *exec.Cmd, attr *syscall.SysProcAttr, say func(outcome)) error {
	runtime.LockOSThread() // the process ends with this thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr, cmd.WaitDelay = attr, time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for d := json.NewDecoder(io.LimitReader(out, 1<<20)); ; {
		var o outcome
		if err := d.Decode(&o); err != nil {
			break
		}
		say(o)
	}
	_ = cmd.Wait() // what it did not say is unknown
	return nil
}

// kinds are the namespaces in which things are tried, each with the probe that stands for it.
var kinds = []struct {
	flag uintptr
	name string
}{
	{unix.CLONE_NEWUSER, "user-namespace"},
	{unix.CLONE_NEWNET, "network-namespace"},
	{unix.CLONE_NEWNS, "mount-namespace"},
	{unix.CLONE_NEWPID, "pid-namespace"},
	{unix.CLONE_NEWUTS, "uts-namespace"},
}

// tryInside runs the probes of the place inside. Where the kernel refuses its namespaces, it finds out which.
func tryInside(ctx context.Context, user bool, say func(outcome)) {
	attr := lab.FreshNamespaces(user)
	attr.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWUTS
	err := assist(ctx, lab.RoleCommand(ctx, roleName, argInside), attr, say)
	if err == nil {
		sayKinds(attr.Cloneflags, say)
		return
	}
	if ctx.Err() != nil {
		return
	}
	allowed := lab.FreshNamespaces(user)
	base := allowed.Cloneflags & unix.CLONE_NEWUSER
	allowed.Cloneflags = base
	for _, k := range kinds {
		if k.flag == unix.CLONE_NEWUSER && !user {
			continue
		}
		one := lab.FreshNamespaces(user)
		one.Cloneflags = base | k.flag
		err := assist(ctx, lab.RoleCommand(ctx, roleName, argNothing), one, func(outcome) {})
		if err != nil {
			say(judge(k.name, "", lab.ExplainNamespaces(err)))
		} else {
			allowed.Cloneflags |= k.flag
		}
		if err != nil && k.flag == unix.CLONE_NEWUSER {
			return // the others are its
		}
	}
	sayKinds(allowed.Cloneflags, say)
	const need = unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if allowed.Cloneflags&need == need {
		_ = assist(ctx, lab.RoleCommand(ctx, roleName, argInside), allowed, say)
	}
}

// sayKinds says that namespaces work. What a process in them found wrong with one has been said before.
func sayKinds(flags uintptr, say func(outcome)) {
	for _, k := range kinds {
		if flags&k.flag != 0 {
			say(outcome{Name: k.name, State: Works})
		}
	}
}

// tryOrdinary runs what an ordinary user tries. It needs a process of its own. Until it executes its program, a process that os/exec
// starts shares the memory of the one that starts it, and who changes credentials takes from that memory the flag "dumpable"
// (PR_SET_DUMPABLE(2const)): without CAP_SYS_PTRACE nobody may then open what the caller has below /proc/PID/fd, for good.
func tryOrdinary(ctx context.Context, say func(outcome)) {
	attr := &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: ordinaryID, Gid: ordinaryID},
		Pdeathsig:  syscall.SIGKILL,
	}
	err := assist(ctx, lab.RoleCommand(ctx, roleName, argUser), attr, say)
	if err == nil {
		return
	}
	why := fmt.Errorf("%w: this program cannot be run as user %d (%w)", errUntried, ordinaryID, err)
	if errors.Is(err, unix.EACCES) {
		why = fmt.Errorf("%w: user %d may not execute this program (%w)", errUntried, ordinaryID, err)
	}
	for _, name := range []string{"user-namespace", "tun-ordinary"} {
		say(judge(name, "", why))
	}
}

// runRole is a process of an examination.
func runRole(args []string) int {
	e := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	say := func(o outcome) {
		mu.Lock()
		defer mu.Unlock()
		_ = e.Encode(o) // the reader is the parent; without it this process ends
	}
	switch args[0] {
	case argHere:
		attemptAll(here, say)
	case argInside:
		if !settle(say) {
			return 0
		}
		attemptAll(inside, say)
	case argOrdinary:
		tryOrdinary(context.Background(), say)
	case argUser:
		attemptAsUser(say)
	case argHolder:
		holdFile(say)
	case argOpener:
		say(judge(procFD, "", openHeld(args[1])))
	}
	return 0
}

// attemptAll tries all that belongs to a place, at once.
func attemptAll(where place, say func(outcome)) {
	var all sync.WaitGroup
	for i := range probes {
		if p := &probes[i]; p.place == where {
			all.Go(func() { say(p.attempt(trialPatience)) })
		}
	}
	all.Wait()
}
