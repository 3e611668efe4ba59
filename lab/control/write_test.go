package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
)

// sink notes what it gets.
type sink struct {
	mu     sync.Mutex
	got    []string
	broken error
	slow   time.Duration
}

func (s *sink) note(what string) error {
	time.Sleep(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.got = append(s.got, what)
	}
	return s.broken
}

func (s *sink) Put(api any) error {
	o := api.(Object)
	return s.note("put " + KindOf(o).Plural + " " + nameOf(o).String())
}

func (s *sink) Delete(kind object.Kind, namespace, n string) error {
	return s.note(fmt.Sprintf("delete %s %s/%s", kind, namespace, n))
}

func (s *sink) Complete() error { return s.note("complete") }

func (s *sink) set(broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// take returns what came since the last call.
func (s *sink) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// writing is a control plane that writes to a sink.
func writing(t *testing.T, s *sink, tell func(string)) (*Plane, func()) {
	p := New(Config{Nodes: []Node{{Name: "node-1"}}, ServiceCIDRs: prefixes("10.96.0.0/16"), Sink: s, Event: func(_, what string) { tell(what) }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	return p, func() { cancel(); <-ended }
}

// The first set is whole, and what others refer to comes before them; then each object comes as it changes.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		p, end := writing(t, s, func(what string) { t.Error(what) })
		defer end()
		c := &cluster{T: t, Plane: p}
		synctest.Wait()
		got := s.take()
		if strings.Join(got[2:], "|") != "put nodes /node-1|put services default/kubernetes|complete" {
			t.Errorf("got %q", got)
		}
		c.follow(all(webService, webPod))
		synctest.Wait()
		got = s.take()
		slices.Sort(got[min(1, len(got)):]) // the endpoints may be known a moment after the pod was written
		if len(got) != 3 || got[0] != "put services default/web" || !strings.HasPrefix(got[1], "put endpointslices default/web-") || got[2] != "put pods default/web" {
			t.Errorf("got %q", got)
		}
		c.follow(webService)
		for _, i := range c.Instances() {
			c.Gone(i.UID)
		}
		synctest.Wait()
		if got := s.take(); got[len(got)-1] != "delete pods default/web" {
			t.Errorf("got %q", got)
		}
	})
}

// Of changes that come faster than they are written, the last one is.
func TestWriterCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{slow: time.Second}
		p, end := writing(t, s, func(what string) { t.Error(what) })
		defer end()
		c := &cluster{T: t, Plane: p}
		time.Sleep(time.Minute)
		s.take()
		c.apply(svc("web"))
		synctest.Wait() // the first one is on its way
		for i := range 10 {
			c.apply(svc("web", fmt.Sprintf("selector: {a: b%d}", i)))
		}
		if err := p.Written(t.Context()); err != nil {
			t.Error(err)
		}
		puts := 0
		for _, got := range s.take() {
			if got == "put services default/web" {
				puts++
			}
		}
		if puts != 2 {
			t.Errorf("%d puts", puts)
		}
	})
}

// What cannot be written is told once, and comes later.
func TestWriterTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		s.set(errors.New("no space"))
		var told []string
		p, end := writing(t, s, func(what string) { told = append(told, what) })
		defer end()
		c := &cluster{T: t, Plane: p}
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Written(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("written: %v", err)
		}
		c.apply(svc("web"))
		time.Sleep(10 * time.Second)
		if strings.Join(told, "|") != "write objects for the daemons: no space" {
			t.Errorf("told %q", told)
		}
		s.set(nil)
		time.Sleep(2 * time.Second)
		got := s.take()
		if len(got) != 6 || got[5] != "complete" {
			t.Errorf("got %q", got)
		}
	})
}
