package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/manifest"
)

// read reads the manifests of a request.
func read(namespace string, files []File) (*manifest.Set, error) {
	s := &manifest.Set{Namespace: namespace}
	for _, f := range files {
		if err := s.Add(f.Name, f.Text); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	return s, nil
}

// nothingIn says why there is nothing to apply: which kinds were left out, or that no object was there at all.
func nothingIn(s *manifest.Set) error {
	if len(s.Warnings) > 0 {
		return apierrors.NewBadRequest(strings.Join(s.Warnings, "\n"))
	}
	return apierrors.NewBadRequest("no objects passed to apply")
}

// Apply makes objects what manifests say. An error means that nothing was changed.
func (p *Plane) Apply(a ApplyRequest) (ApplyResult, error) {
	s, err := read(a.Namespace, a.Files)
	if err != nil {
		return ApplyResult{}, err
	}
	if len(s.Objects) == 0 {
		return ApplyResult{}, nothingIn(s)
	}
	r := ApplyResult{Applied: []Applied{}, Warnings: s.Warnings}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settleLocked()
	for _, o := range s.Objects {
		applied := Applied{Ref: ref(kindOfManifest(o), nameOf(o))}
		if applied.Outcome, err = p.applyLocked(o); err != nil {
			applied.Error = err.Error()
		}
		r.Applied = append(r.Applied, applied)
	}
	return r, nil
}

// Adopt makes objects part of the state as apply does; an error is about the first that cannot be there.
func (p *Plane) Adopt(objects []manifest.Object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settleLocked()
	for i, o := range objects {
		if err := p.wantLocked(o, false, i); err != nil {
			return err
		}
	}
	return nil
}

func kindOfManifest(o manifest.Object) *Kind {
	return KindNamed(o.GetObjectKind().GroupVersionKind().Kind)
}

func (p *Plane) applyLocked(o manifest.Object) (Outcome, error) {
	before := p.desired[manifest.ID(o)]
	if before != nil && before.followed {
		return "", fmt.Errorf("%s %s: %s", kindOfManifest(o).Kind, nameOf(o), before.where())
	}
	order := len(p.desired)
	if before != nil {
		order = before.order
	}
	if m, ok := o.(*manifest.Pod); ok {
		return p.applyPodLocked(m, before, order)
	}
	k := kindOfManifest(o)
	had := p.state.objects[k][nameOf(o)]
	if err := p.wantLocked(o, false, order); err != nil {
		return "", err
	}
	now := p.state.objects[k][nameOf(o)]
	switch {
	case had == nil:
		return Created, nil
	case had.GetResourceVersion() == now.GetResourceVersion():
		return Unchanged, nil
	}
	return Configured, nil
}

// applyPodLocked refuses to change what an API server does not change in a pod either.
func (p *Plane) applyPodLocked(m *manifest.Pod, before *wanted, order int) (Outcome, error) {
	pod := get[*corev1.Pod](p.state, Pods, nameOf(m))
	switch {
	case pod != nil && pod.DeletionTimestamp != nil:
		return "", m.Errorf("metadata.name", "the pod %s of before is ending; try again when it has gone", m.Key())
	case before != nil:
		if at := before.object.(*manifest.Pod).Differs(m); at != "" {
			return "", m.Errorf(at, "it is not changed in a pod that runs; delete the pod first, or run it by a Deployment")
		}
	}
	var had string
	if pod != nil {
		had = pod.ResourceVersion
	}
	if err := p.wantLocked(m, false, order); err != nil {
		return "", err
	}
	p.settleLocked()
	switch now := get[*corev1.Pod](p.state, Pods, nameOf(m)); {
	case had == "":
		return Created, nil
	case now.ResourceVersion == had:
		return Unchanged, nil
	}
	return Configured, nil
}

// Scale sets the number of replicas, and calls told for each Deployment. Of a followed file's Deployment it holds until its manifest
// changes.
func (p *Plane) Scale(s ScaleRequest, told func(Ref)) error {
	f, err := s.filter()
	if err != nil {
		return err
	}
	if f.kind != Deployments {
		return apierrors.NewMethodNotSupported(f.kind.Resource(), "scale")
	}
	if s.Replicas < 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%d replicas: want 0 or more", s.Replicas))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settleLocked()
	chosen, err := p.listLocked(f)
	if err != nil {
		return err
	}
	for _, o := range chosen {
		d := o.(*appsv1.Deployment)
		if s.Current != nil && *d.Spec.Replicas != *s.Current {
			return apierrors.NewConflict(f.kind.Resource(), d.Name, fmt.Errorf("expected replicas to be %d, was %d", *s.Current, *d.Spec.Replicas))
		}
		p.scaled[Deployments.Kind+" "+nameOf(d).String()] = s.Replicas
		c := copyOf(d)
		c.Spec.Replicas = &s.Replicas
		p.state.put(Deployments, c)
		told(ref(Deployments, nameOf(d)))
	}
	return nil
}

// Delete asks objects to go, and calls told for each. With d.Wait it returns when they have gone, or ctx has ended.
func (p *Plane) Delete(ctx context.Context, d DeleteRequest, told func(Ref)) error {
	refs, err := p.chosenToDelete(d)
	if err != nil {
		return err
	}
	type left struct {
		kind *Kind
		name name
		uid  types.UID
	}
	var all []left
	var errs []error
	for _, r := range refs {
		k, n := KindNamed(r.Kind), name{Namespace: r.Namespace, Name: r.Name}
		switch uid, err := p.delete(k, n, d.GracePeriod); {
		case err != nil && d.IgnoreNotFound && apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, err)
		default:
			told(r)
			all = append(all, left{k, n, uid})
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	if err := errors.Join(errs...); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if !d.Wait {
		return nil
	}
	for _, l := range all {
		if err := p.waitGone(ctx, l.kind, l.name, l.uid); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) chosenToDelete(d DeleteRequest) ([]Ref, error) {
	var refs []Ref
	if d.Query != nil {
		q := *d.Query
		named := q.Names
		q.Names = nil
		f, err := q.filter()
		if err != nil {
			return nil, err
		}
		for _, n := range named {
			refs = append(refs, ref(f.kind, name{Namespace: f.namespace, Name: n}))
		}
		if len(named) > 0 {
			return refs, nil
		}
		objects, err := p.List(q)
		for _, o := range objects {
			refs = append(refs, ref(f.kind, nameOf(o)))
		}
		return refs, err
	}
	s, err := read(d.Namespace, d.Files)
	if err != nil {
		return nil, err
	}
	for _, o := range s.Objects {
		refs = append(refs, ref(kindOfManifest(o), nameOf(o)))
	}
	slices.Reverse(refs) // what stands later may need what stands before
	return refs, nil
}

// delete asks one object to go, and returns its UID.
func (p *Plane) delete(k *Kind, n name, grace *int64) (types.UID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settleLocked()
	o := p.state.objects[k][n]
	if o == nil {
		return "", apierrors.NewNotFound(k.Resource(), n.Name)
	}
	return o.GetUID(), p.deleteLocked(k, n, o, grace)
}

func (p *Plane) deleteLocked(k *Kind, n name, o Object, grace *int64) error {
	w := p.desired[k.Kind+" "+n.String()]
	if !k.Namespaced {
		w = p.desired[k.Kind+" "+n.Name]
	}
	if w != nil && w.followed {
		return forbidden(k, n, w.where())
	}
	switch k {
	case Pods:
		if w != nil {
			delete(p.desired, manifest.ID(w.object))
		}
		p.deletePodLocked(o.(*corev1.Pod), "deleted, as somebody has asked for it", grace)
		return nil
	case Namespaces:
		return p.deleteNamespaceLocked(n.Name)
	}
	switch {
	case w != nil:
		p.unwantLocked(w)
	case k == EndpointSlices && metav1.GetControllerOf(o) != nil: // it is made anew
		p.state.remove(k, n)
		p.dirty.services[name{Namespace: n.Namespace, Name: metav1.GetControllerOf(o).Name}] = true
	default:
		return forbidden(k, n, "it is the control plane's own")
	}
	return nil
}

func forbidden(k *Kind, n name, why string) error {
	return apierrors.NewForbidden(k.Resource(), n.Name, errors.New(why))
}

// deleteNamespaceLocked asks all that is in a namespace to go, and the namespace with it.
func (p *Plane) deleteNamespaceLocked(n string) error {
	if n == metav1.NamespaceDefault || n == metav1.NamespaceSystem {
		return forbidden(Namespaces, name{Name: n}, "this namespace may not be deleted")
	}
	var all []*wanted
	for _, w := range p.orderedLocked() {
		if w.object.GetNamespace() != n && manifest.ID(w.object) != "Namespace "+n {
			continue
		}
		if w.followed {
			return forbidden(Namespaces, name{Name: n}, fmt.Sprintf("of what is in it %s is followed: %s", manifest.ID(w.object), w.where()))
		}
		all = append(all, w)
	}
	for _, w := range all {
		p.unwantLocked(w)
	}
	p.dirty.namespaces[n] = true
	return nil
}

// waitGone returns when an object is there no more, or another one has its name.
func (p *Plane) waitGone(ctx context.Context, k *Kind, n name, uid types.UID) error {
	w := &watcher{filter: filter{kind: k, namespace: n.Namespace, names: []string{n.Name}, selector: labels.Everything()}, ready: make(chan struct{}, 1)}
	p.mu.Lock()
	p.watchers[w] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, w)
	}()
	for {
		p.mu.Lock()
		o := p.state.objects[k][n]
		p.mu.Unlock()
		if o == nil || o.GetUID() != uid {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ready:
		}
	}
}
