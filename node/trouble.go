package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel/udp"
)

// Problem is what somebody has to mend, while it lasts.
type Problem struct {
	// Reason is a word in CamelCase for programs, that of the Event about it.
	Reason string `json:"reason"`
	// Message is a sentence with what to do.
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// Reasons of Problems and Events. Those of the cluster's objects are package informers'.
const (
	reasonConfiguration = "ConfigurationNotUsable"
	reasonRunDir        = "RunDirectoryNotUsable"
	reasonAddress       = "AddressNotUsable"
	reasonPort          = "TunnelPortTaken"
	reasonTUN           = "TUNDeviceNotUsable"
	reasonCapability    = "CapabilityMissing"
	reasonHostDevice    = "HostDeviceNotUsable"
	reasonStart         = "StartFailed"
	reasonOtherCNI      = "OtherNetworkConfiguration"
	reasonConflist      = "NetworkConfigurationNotWritten"
	reasonServices      = "ServiceRangeWrong"
	reasonPeer          = "PeerLeftOut"
	reasonSameName      = "NodeNameTaken"
)

// troubleRepeat is how often what is still wrong is told again; Events are kept for an hour by default (kube-apiserver --event-ttl).
const troubleRepeat = 15 * time.Minute

// troubles are the problems that there are.
type troubles struct {
	log  *slog.Logger
	warn func(reason, message string) // has an Event written; nil: nobody reads it

	mu  sync.Mutex // guards all
	all map[string]Problem
}

// begin notes a problem about something. It is logged and told unless that is known already.
func (t *troubles) begin(about, reason, message string) {
	t.mu.Lock()
	was, known := t.all[about]
	if known && was.Message == message {
		t.mu.Unlock()
		return
	}
	if t.all == nil {
		t.all = map[string]Problem{}
	}
	t.all[about] = Problem{reason, message, time.Now()}
	t.mu.Unlock()
	t.log.Warn(message)
	if t.warn != nil {
		t.warn(reason, message)
	}
}

// end notes that nothing is wrong with something any more, and logs the sentence if something was.
func (t *troubles) end(about, mended string) {
	t.mu.Lock()
	_, was := t.all[about]
	delete(t.all, about)
	t.mu.Unlock()
	if was {
		t.log.Info(mended)
	}
}

// list returns the problems that there are, sorted.
func (t *troubles) list() []Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Problem, 0, len(t.all))
	for _, p := range t.all {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Problem) int { return strings.Compare(a.Reason+a.Message, b.Reason+b.Message) })
	return list
}

// repeat tells what is still wrong again and again, until ctx ends.
func (t *troubles) repeat(ctx context.Context) error {
	if t.warn == nil {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(troubleRepeat):
		}
		for _, p := range t.list() {
			t.warn(p.Reason, p.Message)
		}
	}
}

// startError is why a start failed, for programs.
type startError struct {
	reason string
	waits  bool // it may be mended while the daemon waits
	error
}

func (e *startError) Unwrap() error { return e.error }

// failed says in which step a start has failed.
func failed(reason string, waits bool, err error) error {
	if known := (*startError)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	return &startError{reason, waits, err}
}

// unusable marks an error of the configuration, which a daemon that waits would never see mended.
func unusable(err error) error { return failed(reasonConfiguration, false, err) }

// reasonOf returns what kind of mistake ended a start, and whether it may be mended while the daemon waits. What a container may do never
// changes while it runs.
func reasonOf(err error) (reason string, waits bool) {
	step := &startError{reason: reasonStart}
	errors.As(err, &step)
	switch {
	case errors.Is(err, udp.ErrPortTaken):
		return reasonPort, true
	case errors.Is(err, tun.ErrUnavailable):
		return reasonTUN, errors.Is(err, unix.ENOENT)
	case errors.Is(err, unix.EPERM):
		return reasonCapability, false
	}
	return step.reason, step.waits
}

// failure is what was told of a former attempt to start.
type failure struct {
	sentence string
	told     time.Time
}

// tellFailure has the cluster told why a start failed, where it can be, and of the same failure again and again, but not each time.
func (n *Node) tellFailure(ctx context.Context, err error, former *failure) {
	if n.cluster.api == nil || ctx.Err() != nil || former.sentence == sentence(err) && time.Since(former.told) < troubleRepeat {
		return
	}
	*former = failure{sentence(err), time.Now()}
	ctx, cancel := context.WithTimeout(ctx, failurePatience)
	defer cancel()
	reason, _ := reasonOf(err)
	n.cluster.api.WarnNow(ctx, reason, sentence(err))
}

// failurePatience is how long the end of a start waits for the API server to take its Event.
const failurePatience = 5 * time.Second

// sentence is an error in one line.
func sentence(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// refused returns the sentence and the reason for an error of the API server.
func refused(err error) (reason, message string, ok bool) {
	message, ok = informers.Refusal(err)
	return informers.ReasonRights, message, ok
}
