// Package stage sets up where `middleway check` and `middleway perf` play: a namespace with a random name, with pods of the image that the
// cluster's daemons run. It is labelled, so that what a killed run leaves is found by the next one, and it goes as a whole:
//
//	namespace middleway-check-x7k2p   label app.kubernetes.io/name: middleway-check
//	├─ DaemonSets, pods
//	└─ Services
package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/middleway-net/middleway/cluster"
)

const (
	nameLabel = "app.kubernetes.io/name"
	// keepLabel marks a namespace that a person wants to stay.
	keepLabel = "middleway.net/keep"
	// stale is the age from which a namespace of a former run is taken for forgotten.
	stale = time.Hour
)

// Stage is a namespace of its own.
type Stage struct {
	API  *cluster.API
	Name string // of the namespace
}

// Open makes a namespace whose name begins with a prefix. Pods that use the node's network and ports are allowed in it (Pod Security
// Standards). A namespace that is to be kept is not taken for forgotten by later runs.
func Open(ctx context.Context, api *cluster.API, prefix string, keep bool) (*Stage, error) {
	s := &Stage{API: api, Name: prefix + "-" + rand.String(5)}
	labels := map[string]string{nameLabel: prefix, "app.kubernetes.io/managed-by": "middleway"}
	for _, mode := range []string{"enforce", "audit", "warn"} {
		labels["pod-security.kubernetes.io/"+mode] = "privileged"
	}
	if keep {
		labels[keepLabel] = "true"
	}
	ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: labels}}
	if err := api.Create(ctx, "/api/v1/namespaces", &ns, nil); err != nil {
		return nil, err
	}
	return s, s.awaitAccount(ctx)
}

// awaitAccount waits for the service account without which the API server takes no pod.
func (s *Stage) awaitAccount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		err := s.API.Get(ctx, s.path("serviceaccounts")+"/default", nil, &corev1.ServiceAccount{})
		if err != nil && !apierrors.IsNotFound(err) && !errors.Is(err, cluster.ErrForbidden) {
			return false, err
		}
		return !apierrors.IsNotFound(err), nil // who may not look goes on: what creates pods tries again
	})
}

// pollPause lies between two looks at the API server.
const pollPause = 500 * time.Millisecond

// poll calls done until it is, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	t := time.NewTicker(pollPause)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// path is that of a kind of group "" in the namespace.
func (s *Stage) path(kind string) string { return "/api/v1/namespaces/" + s.Name + "/" + kind }

// Create makes an object of the namespace. group is "" or like apps.
func (s *Stage) Create(ctx context.Context, group, kind string, object, into any) error {
	path := s.path(kind)
	if group != "" {
		path = "/apis/" + group + "/v1/namespaces/" + s.Name + "/" + kind
	}
	return s.API.Create(ctx, path, object, into)
}

// List reads the objects of a kind in the namespace.
func (s *Stage) List(ctx context.Context, group, kind string, into any) error {
	path := s.path(kind)
	if group != "" {
		path = "/apis/" + group + "/v1/namespaces/" + s.Name + "/" + kind
	}
	return s.API.Get(ctx, path, nil, into)
}

// closePatience is how long the API server has to take note that a namespace is to go.
const closePatience = 15 * time.Second

// Close has the namespace removed, also after ctx has ended. It does not wait for the end of its pods.
func (s *Stage) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	if err := s.API.Delete(ctx, "/api/v1/namespaces/"+s.Name); err != nil {
		return fmt.Errorf("%w; remove it with `kubectl delete namespace %s`", err, s.Name)
	}
	return nil
}

// Leftover is a namespace of another run.
type Leftover struct {
	Name string
	Age  time.Duration
	Kept bool // somebody wanted it to stay
}

// Forgotten reports whether no run that still goes on can have it.
func (l Leftover) Forgotten() bool { return !l.Kept && l.Age >= stale }

// Leftovers finds namespaces of other runs with a prefix that are not on their way out, sorted by name.
func Leftovers(ctx context.Context, api *cluster.API, prefix string) (all []Leftover, err error) {
	var list corev1.NamespaceList
	if err := api.Get(ctx, "/api/v1/namespaces", url.Values{"labelSelector": {nameLabel + "=" + prefix}}, &list); err != nil {
		return nil, err
	}
	for _, ns := range list.Items {
		if ns.DeletionTimestamp == nil && ns.Labels[nameLabel] == prefix && strings.HasPrefix(ns.Name, prefix+"-") {
			all = append(all, Leftover{ns.Name, time.Since(ns.CreationTimestamp.Time), ns.Labels[keepLabel] != ""})
		}
	}
	slices.SortFunc(all, func(a, b Leftover) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Remove has the namespace of a leftover removed.
func Remove(ctx context.Context, api *cluster.API, l Leftover) error {
	return (&Stage{API: api, Name: l.Name}).Close(ctx)
}

// Ask runs middleway in a container of the namespace with a plan or nothing as its input, and hands what it prints to each, one JSON object
// at a time, until it ends.
func Ask[T any](ctx context.Context, s *Stage, pod, container string, argv []string, input any, each func(T)) error {
	in, err := json.Marshal(input)
	if err != nil {
		return err
	}
	var errs strings.Builder
	out := &objects[T]{each: each}
	if err = s.API.Run(ctx, cluster.Container{Namespace: s.Name, Pod: pod, Name: container}, argv, strings.NewReader(string(in)+"\n"), out, &errs); err == nil {
		err = out.end()
	}
	if words := strings.TrimSpace(errs.String()); err != nil && words != "" {
		return fmt.Errorf("%s: %w: %s", pod, err, words)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", pod, err)
	}
	return nil
}

// objects is a Writer that decodes a stream of JSON objects, each of which ends with a line that has no blank at its begin.
type objects[T any] struct {
	each func(T)
	rest []byte
}

func (o *objects[T]) Write(p []byte) (int, error) {
	o.rest = append(o.rest, p...)
	for {
		d := json.NewDecoder(strings.NewReader(string(o.rest)))
		var v T
		if err := d.Decode(&v); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				return 0, fmt.Errorf("not what this command prints: %q", o.rest[:min(len(o.rest), 200)])
			}
			return len(p), nil // not all of it is here
		}
		o.rest = o.rest[d.InputOffset():]
		o.each(v)
	}
}

// end reports what was cut off.
func (o *objects[T]) end() error {
	if rest := strings.TrimSpace(string(o.rest)); rest != "" {
		return fmt.Errorf("its answer breaks off: %q", rest[:min(len(rest), 200)])
	}
	return nil
}
