package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/cluster/probe"
	"github.com/middleway-net/middleway/cluster/stage"
)

// family is 4 or 6.
type family int

// has reports whether an address is of the family.
func (f family) has(a netip.Addr) bool { return a.Is4() == (f == 4) }

func (f family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// question is what one pod asks.
type question struct {
	check    *Check
	pod      string
	from, to string // nodes, or in place of the second what else is asked
	ask      probe.Question
	judge    func(probe.Answer) error
}

// compare compares pairs of words in turn.
func compare(words ...string) int {
	for i := 0; i+1 < len(words); i += 2 {
		if c := cmp.Compare(words[i], words[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// check returns a check of the report, which it adds. family is empty where there is but one.
func (r *run) check(group, name, family string) *Check {
	c := &Check{Group: group, Name: name, Family: family}
	r.report.Checks = append(r.report.Checks, c)
	return c
}

// add has a pod of a node ask something. judge says what is wrong with an answer; it may be nil.
func (r *run) add(c *Check, from string, p place, to string, ask probe.Question, judge func(probe.Answer) error) {
	ask.ID = len(r.questions)
	r.questions = append(r.questions, &question{c, p.pod, from, to, ask, judge})
}

// podsAtOnce is how many pods ask at a time.
const podsAtOnce = 8

// ask has all pods ask what is theirs.
func (r *run) ask(ctx context.Context) error {
	byPod := map[string][]probe.Question{}
	for _, q := range r.questions {
		byPod[q.pod] = append(byPod[q.pod], q.ask)
	}
	answered := make([]bool, len(r.questions))
	done := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(podsAtOnce)
	for pod, questions := range byPod {
		g.Go(func() error {
			err := r.askFrom(gctx, pod, questions, func(a probe.Answer) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if a.ID < 0 || a.ID >= len(answered) || answered[a.ID] {
					return
				}
				answered[a.ID] = true
				done++
				r.questions[a.ID].answered(a)
				r.Progress(fmt.Sprintf("%d of %d questions answered", done, len(r.questions)))
			})
			if err == nil {
				return nil
			}
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, q := range questions {
				if !answered[q.ID] {
					answered[q.ID] = true
					r.questions[q.ID].answered(probe.Answer{Error: "could not be asked: " + err.Error()})
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// askFrom runs one process in a pod. Its time is bounded by that of its questions, some of which it asks at once.
func (r *run) askFrom(ctx context.Context, pod string, questions []probe.Question, tell func(probe.Answer)) error {
	limit := 30*time.Second + time.Duration(1+len(questions)/8)*(r.Timeout+2*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("pod %s did not tell all within %v", pod, limit))
	defer cancel()
	err := stage.Ask(ctx, r.stage, pod, container, stage.Argv("tool", "probe"), probe.Plan{Questions: questions, Timeout: r.Timeout}, tell)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// answered counts an answer.
func (q *question) answered(a probe.Answer) {
	c := q.check
	err := error(nil)
	if a.Error != "" {
		err = errors.New(a.Error)
	} else if q.judge != nil {
		err = q.judge(a)
	}
	if err != nil {
		c.fail(q.from, q.to, err.Error())
		return
	}
	c.pass(q.from, q.to, a.Took)
	if a.Tries > 1 {
		c.late = append(c.late, fmt.Sprintf("%s: answered at the %s try only", pairWords(q.from, q.to), []string{"", "first", "second", "third"}[min(a.Tries, 3)]))
	}
	if a.Whole > a.MTU {
		c.Notes = append(c.Notes, fmt.Sprintf("%s: takes packets of %d bytes, its interface %d; senders are told", pairWords(q.from, q.to), a.MTU, a.Whole))
	}
}

// pairWords is who asked, and whom if that has a name.
func pairWords(from, to string) string {
	if to == "" {
		return from
	}
	return from + " → " + to
}

// answeredBy wants an answer from this pod alone.
func answeredBy(host string) func(probe.Answer) error {
	return func(a probe.Answer) error {
		if !slices.Equal(a.Hosts, []string{host}) {
			return fmt.Errorf("%s answered, not %s", strings.Join(a.Hosts, " and "), host)
		}
		return nil
	}
}

// seenAs wants that the server saw one of these addresses.
func seenAs(own []netip.Addr) func(probe.Answer) error {
	return func(a probe.Answer) error {
		if !slices.Contains(own, a.Seen.Addr()) {
			return fmt.Errorf("the server saw %v, not the pod's own address", a.Seen.Addr())
		}
		return nil
	}
}

// answeredByOneOf wants answers from these pods.
func answeredByOneOf(hosts []string) func(probe.Answer) error {
	return func(a probe.Answer) error {
		for _, h := range a.Hosts {
			if !slices.Contains(hosts, h) {
				return fmt.Errorf("%s answered, which is none of the Service's pods", h)
			}
		}
		return nil
	}
}

// theRecords wants these records, in any order.
func theRecords(want ...string) func(probe.Answer) error {
	slices.Sort(want)
	return func(a probe.Answer) error {
		got := slices.Clone(a.Records)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("got %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
		}
		return nil
	}
}
