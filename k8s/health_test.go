package k8s

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/k8s/services"
	"github.com/middleway-net/middleway/stack/service"
)

func balancedOf(name string, port uint16) *object.Service {
	s := serviceOf(name)
	s.ExternalLocal, s.HealthPort = true, port
	return s
}

// What load balancers are told follows the Services once these are in force, and only where it changes.
func TestHealthChecks(t *testing.T) {
	steps := []struct {
		name string
		do   func(*Store)
		want string // "" if nothing is handed on
	}{
		{"an endpoint elsewhere", func(s *Store) {
			slice := sliceOf("web-y", "web", "10.244.2.2")
			slice.Endpoints[0].Node = "n2"
			s.Set(slice)
		}, ""},
		{"a second one here", func(s *Store) { s.Set(sliceOf("web-z", "web", "10.244.1.3")) }, "0.0.0.0:32000 default/web 2"},
		{"another Service", func(s *Store) { s.Set(balancedOf("api", 32001)) }, "0.0.0.0:32000 default/web 2, 0.0.0.0:32001 default/api 0"},
		{"one with the same port", func(s *Store) { s.Set(balancedOf("zoo", 32000)) }, "0.0.0.0:32000 default/web 2, 0.0.0.0:32001 default/api 0"},
		{"that has it now", func(s *Store) { s.Delete(object.Services, key("web")) }, "0.0.0.0:32000 default/zoo 0, 0.0.0.0:32001 default/api 0"},
		{"none has one any more", func(s *Store) { s.Set(serviceOf("zoo")); s.Set(serviceOf("api")) }, "none"},
	}
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		c := r.config(has(balancedOf("web", 32000), sliceOf("web-x", "web", "10.244.1.2")))
		got := ""
		c.SetHealthChecks = func(all []services.HealthCheck) {
			r.note("health", func() {
				var list []string
				for _, c := range all {
					list = append(list, fmt.Sprintf("%v %v %d", c.At, c.Service, c.Local))
				}
				if got = strings.Join(list, ", "); got == "" {
					got = "none"
				}
			})
		}
		p := New(c)
		end := start(t, p)
		time.Sleep(time.Second)
		if calls := r.taken(); len(calls) == 0 || calls[len(calls)-1] != "health" || got != "0.0.0.0:32000 default/web 1" {
			t.Errorf("handed on %v, at last %q", calls, got)
		}
		for _, step := range steps {
			got = ""
			step.do(p.Store())
			time.Sleep(time.Second)
			if got != step.want {
				t.Errorf("%s: got %q, want %q", step.name, got, step.want)
			}
		}
		end()
	})
}

// Where NodePorts are another program's, so is what load balancers ask.
func TestHealthChecksOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		c := r.config(has(balancedOf("web", 32000), sliceOf("web-x", "web", "10.244.1.2")))
		c.ClusterIPsOnly = true
		c.SetHealthChecks = func(all []services.HealthCheck) { t.Errorf("handed on: %v", all) }
		end := start(t, New(c))
		time.Sleep(time.Second)
		end()
	})
}

// TestWaiting: a change waits while who takes it does not come to an end, and from the moment it happened.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &targets{}
		c := r.config(has(serviceOf("web")))
		hold := make(chan struct{})
		c.SetServices = func(*service.Table) { <-hold }
		p := New(c)
		if got := p.Waiting(); !got.IsZero() {
			t.Errorf("before the start: %v", got)
		}
		end := start(t, p)
		time.Sleep(time.Second)
		first := p.Waiting()
		if first.IsZero() {
			t.Error("nothing waits for who does not take it")
		}
		p.Store().Set(serviceWith("db", "10.96.0.21"))
		hold <- struct{}{}
		time.Sleep(time.Second)
		if got := p.Waiting(); !got.After(first) || time.Since(got) < time.Second {
			t.Errorf("the second change waits since %v, the first did since %v", got, first)
		}
		hold <- struct{}{}
		synctest.Wait()
		if got := p.Waiting(); !got.IsZero() {
			t.Errorf("all is in force, and something waits since %v", got)
		}
		end()
	})
}
