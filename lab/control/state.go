package control

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// name names an object within its kind.
type name = types.NamespacedName

func nameOf(o Object) name { return name{Namespace: o.GetNamespace(), Name: o.GetName()} }

// state holds the objects. Its caller has the lock.
type state struct {
	objects map[*Kind]map[name]Object
	version uint64
	// changed is called for each change: before is nil for a new object, after for one that is gone.
	changed func(k *Kind, before, after Object)
}

func newState(changed func(*Kind, Object, Object)) *state {
	s := &state{objects: map[*Kind]map[name]Object{}, changed: changed}
	for _, k := range Kinds {
		s.objects[k] = map[name]Object{}
	}
	return s
}

// get returns an object, or its zero value, a nil pointer.
func get[T Object](s *state, k *Kind, n name) T {
	o, _ := s.objects[k][n].(T)
	return o
}

// list returns the objects of a kind in a namespace, "" for all, sorted by namespace and name.
func list[T Object](s *state, k *Kind, namespace string) []T {
	var all []T
	for n, o := range s.objects[k] {
		if namespace == "" || n.Namespace == namespace {
			all = append(all, o.(T))
		}
	}
	slices.SortFunc(all, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all
}

// put makes an object what o is, which belongs to the state from then on. What a server writes is filled in. It returns the object as
// it is then, and whether that is another one than before.
func (s *state) put(k *Kind, o Object) (Object, bool) {
	o.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	before := s.objects[k][nameOf(o)]
	if before == nil {
		if o.GetUID() == "" {
			o.SetUID(uuid.NewUUID())
		}
		o.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second))) // as JSON has it
		o.SetGeneration(1)
	} else {
		o.SetUID(before.GetUID())
		o.SetCreationTimestamp(before.GetCreationTimestamp())
		o.SetGeneration(before.GetGeneration())
		o.SetResourceVersion(before.GetResourceVersion())
		if apiequality.Semantic.DeepEqual(before, o) {
			return before, false
		}
		if !apiequality.Semantic.DeepEqual(wish(before), wish(o)) {
			o.SetGeneration(before.GetGeneration() + 1)
		}
	}
	s.version++
	o.SetResourceVersion(strconv.FormatUint(s.version, 10))
	s.objects[k][nameOf(o)] = o
	s.changed(k, before, o)
	return o, true
}

// wish returns the part of an object whose changes its generation counts.
func wish(o Object) any {
	if spec := reflect.ValueOf(o).Elem().FieldByName("Spec"); spec.IsValid() {
		return spec.Interface()
	}
	c := o.DeepCopyObject().(Object)
	c.SetLabels(nil)
	c.SetAnnotations(nil)
	return c
}

// remove removes an object, if it is there.
func (s *state) remove(k *Kind, n name) {
	before := s.objects[k][n]
	if before == nil {
		return
	}
	s.version++
	delete(s.objects[k], n)
	s.changed(k, before, nil)
}

// copyOf returns a copy of an object that may be changed and put.
func copyOf[T Object](o T) T { return o.DeepCopyObject().(T) }

// ref names an object for who asked for it.
func ref(k *Kind, n name) Ref {
	return Ref{Kind: k.Kind, Group: k.Group, Namespace: n.Namespace, Name: n.Name}
}

// String returns the object as kubectl writes it: pod/web, deployment.apps/web.
func (r Ref) String() string {
	k := KindNamed(r.Kind)
	if k == nil {
		return r.Name
	}
	if k.Group != "" {
		return fmt.Sprintf("%s.%s/%s", k.Singular(), k.Group, r.Name)
	}
	return k.Singular() + "/" + r.Name
}
