package control

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// wanted is an object as a manifest has it.
type wanted struct {
	object   manifest.Object
	followed bool // its file is followed: it is changed there, and nowhere else
	order    int
}

// where says where a followed object is changed.
func (w *wanted) where() string {
	file, _ := manifest.FileOf(w.object)
	return fmt.Sprintf("it is in %s, which is followed; change it there", file)
}

// ownMeta returns what a manifest says of its object, without what a server wrote.
func ownMeta(o manifest.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), Labels: o.GetLabels(), Annotations: o.GetAnnotations()}
}

// Check finds out whether an object can be there, whatever others are by then: it is right in itself, and changes only what may change.
// Nothing changes by it.
func (p *Plane) Check(o manifest.Object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkLocked(o)
}

func (p *Plane) checkLocked(o manifest.Object) error {
	switch o := o.(type) {
	case *manifest.Service:
		_, err := p.admitService(o)
		return err
	case *manifest.Deployment:
		if err := p.config.Fits(o.Instance(o.Name)); err != nil {
			return err
		}
		before := get[*appsv1.Deployment](p.state, Deployments, nameOf(o))
		if before != nil && !apiequality.Semantic.DeepEqual(before.Spec.Selector, o.Spec.Selector) {
			return o.Errorf("spec.selector", "it stays as it was while the Deployment lives; remove the Deployment first, or give this one another name")
		}
	case *manifest.EndpointSlice:
		before := get[*discoveryv1.EndpointSlice](p.state, EndpointSlices, nameOf(o))
		if before != nil && before.AddressType != o.AddressType {
			return o.Errorf("addressType", "it is %s, and stays so while the slice lives; remove the slice first", before.AddressType)
		}
		if before != nil && p.desired[manifest.ID(o)] == nil {
			return o.Errorf("metadata.name", "%s is a slice of the control plane's; give this one another name", o.Name)
		}
	case *manifest.Pod:
		before := get[*corev1.Pod](p.state, Pods, nameOf(o))
		if before != nil && metav1.GetControllerOf(before) != nil {
			return o.Errorf("metadata.name", "%s is a pod of a Deployment; give this one another name", o.Key())
		}
		return p.config.Fits(o)
	}
	return nil
}

// Follow makes the objects of followed files those that objects are by now, and returns the errors of those that cannot be there,
// which stay what they were.
func (p *Plane) Follow(objects []manifest.Object) (errs []*manifest.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settleLocked()
	var ids []string
	for _, o := range objects {
		ids = append(ids, manifest.ID(o))
	}
	for _, w := range p.orderedLocked() {
		if w.followed && !slices.Contains(ids, manifest.ID(w.object)) {
			p.unwantLocked(w)
		}
	}
	for i, o := range objects {
		if err := p.wantLocked(o, true, i); err != nil {
			errs = append(errs, asManifestError(o, err))
		}
	}
	return errs
}

func asManifestError(o manifest.Object, err error) *manifest.Error {
	if e, ok := err.(*manifest.Error); ok {
		return e
	}
	file, line := manifest.FileOf(o)
	return &manifest.Error{File: file, Line: line, Problem: err.Error()}
}

// orderedLocked returns what is wanted, in the order of the manifests.
func (p *Plane) orderedLocked() []*wanted {
	var all []*wanted
	for _, w := range p.desired {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *wanted) int { return a.order - b.order })
	return all
}

// wantLocked makes an object part of the state.
func (p *Plane) wantLocked(o manifest.Object, followed bool, order int) error {
	if err := p.checkLocked(o); err != nil {
		return err
	}
	before := p.desired[manifest.ID(o)]
	switch o := o.(type) {
	case *manifest.Namespace:
		n := o.Namespace.DeepCopy()
		n.ObjectMeta = ownMeta(o)
		p.state.put(Namespaces, namespaceObject(n))
	case *manifest.Service:
		a, err := p.admitService(o)
		if err == nil {
			err = p.checkFree(a, o)
		}
		if err != nil {
			return err
		}
		p.addresses.set(nameOf(o), a.addrs, a.ports)
		p.state.put(Services, a.service)
	case *manifest.EndpointSlice:
		s := o.EndpointSlice.DeepCopy()
		s.ObjectMeta = ownMeta(o)
		p.state.put(EndpointSlices, s)
	case *manifest.Deployment:
		p.putDeploymentLocked(o, before)
	case *manifest.Pod:
		p.dirty.pods[nameOf(o)] = true
	}
	p.desired[manifest.ID(o)] = &wanted{o, followed, order}
	if o.GetNamespace() != "" {
		p.needNamespaceLocked(o.GetNamespace())
	}
	return nil
}

// putDeploymentLocked keeps the replicas that somebody has asked for by scale: as long as the manifest stays as it is, and beyond where
// it names none.
func (p *Plane) putDeploymentLocked(o *manifest.Deployment, before *wanted) {
	id := manifest.ID(o)
	d := o.Deployment.DeepCopy()
	d.ObjectMeta = ownMeta(o)
	if before != nil {
		was := before.object.(*manifest.Deployment)
		if o.Written("spec.replicas") && !apiequality.Semantic.DeepEqual(was.Spec, o.Spec) {
			delete(p.scaled, id)
		}
	}
	if n, ok := p.scaled[id]; ok {
		d.Spec.Replicas = &n
	}
	if had := get[*appsv1.Deployment](p.state, Deployments, nameOf(o)); had != nil {
		d.Status = had.Status
		if revision, ok := had.Annotations[revisionAnnotation]; ok {
			d.Annotations = withEntry(d.Annotations, revisionAnnotation, revision)
		}
	} else {
		d.Status = appsv1.DeploymentStatus{}
	}
	p.state.put(Deployments, d)
}

// withEntry returns a copy of a map with one entry more.
func withEntry(m map[string]string, key, value string) map[string]string {
	c := map[string]string{key: value}
	for k, v := range m {
		if k != key {
			c[k] = v
		}
	}
	return c
}

// unwantLocked takes an object, with what was made for it, out of the state; pods get their time to end.
func (p *Plane) unwantLocked(w *wanted) {
	id, n := manifest.ID(w.object), nameOf(w.object)
	delete(p.desired, id)
	delete(p.scaled, id)
	switch o := w.object.(type) {
	case *manifest.Namespace:
		p.dirty.namespaces[o.Name] = true
	case *manifest.Service:
		p.addresses.set(n, nil, nil)
		service := p.state.objects[Services][n]
		p.state.remove(Services, n)
		for _, s := range list[*discoveryv1.EndpointSlice](p.state, EndpointSlices, n.Namespace) {
			if service != nil && metav1.IsControlledBy(s, service) {
				p.state.remove(EndpointSlices, nameOf(s))
			}
		}
	case *manifest.EndpointSlice:
		p.state.remove(EndpointSlices, n)
	case *manifest.Deployment:
		p.removeDeploymentLocked(n)
	case *manifest.Pod:
		p.dirty.pods[n] = true
	}
	p.dirty.namespaces[n.Namespace] = true
}

// dropNamespaceLocked removes a namespace that nobody wants and in which nothing is.
func (p *Plane) dropNamespaceLocked(n string) {
	if n == "" || n == metav1.NamespaceDefault || n == metav1.NamespaceSystem || p.desired["Namespace "+n] != nil {
		return
	}
	for _, w := range p.desired {
		if w.object.GetNamespace() == n {
			return
		}
	}
	for _, k := range Kinds {
		for at := range p.state.objects[k] {
			if at.Namespace == n {
				return
			}
		}
	}
	p.state.remove(Namespaces, name{Name: n})
}
