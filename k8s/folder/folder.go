// Package folder is the state folder: a cluster's objects as files, for nodes without an API server. One control plane writes
// it (Writer), and every node reads it (Source) and follows its changes.
//
//	DIR/complete                        is there once the first whole set is; without it readers change nothing
//	DIR/nodes/n1.json                   complete ordinary API objects, with apiVersion and kind
//	DIR/services/default/web.json       those of namespaced kinds lie in a folder of their namespace
//	DIR/services/default/.web.tmp       being written; becomes web.json by a rename
package folder

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/object"
)

// marker is the name of the file that says that the folder is whole.
const marker = "complete"

// suffix is that of objects' files.
const suffix = ".json"

// api is what the API says about a kind.
type api struct {
	metav1.TypeMeta
	object reflect.Type // of the struct
}

var apis = map[object.Kind]api{
	object.Nodes:          {meta("v1", "Node"), reflect.TypeFor[corev1.Node]()},
	object.Namespaces:     {meta("v1", "Namespace"), reflect.TypeFor[corev1.Namespace]()},
	object.Pods:           {meta("v1", "Pod"), reflect.TypeFor[corev1.Pod]()},
	object.Services:       {meta("v1", "Service"), reflect.TypeFor[corev1.Service]()},
	object.EndpointSlices: {meta("discovery.k8s.io/v1", "EndpointSlice"), reflect.TypeFor[discoveryv1.EndpointSlice]()},
}

func meta(apiVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}
}

// typed returns the object's kind, and a shallow copy that says it. api is a pointer to a struct of k8s.io/api.
func typed(api any) (object.Kind, metav1.Object, error) {
	v := reflect.ValueOf(api)
	for _, kind := range object.Kinds {
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem() != apis[kind].object {
			continue
		}
		c := reflect.New(apis[kind].object)
		c.Elem().Set(v.Elem())
		c.Elem().FieldByName("TypeMeta").Set(reflect.ValueOf(apis[kind].TypeMeta))
		return kind, c.Interface().(metav1.Object), nil
	}
	return 0, nil, fmt.Errorf("the state folder has no place for a %T", api)
}

// path returns where, relative to the folder, an object's file is.
func path(kind object.Kind, name object.Key) (string, error) {
	parts := []string{name.Name}
	if kind.Namespaced() {
		parts = []string{name.Namespace, name.Name}
	} else if name.Namespace != "" {
		return "", fmt.Errorf("%s lie in no namespace, so not in %q", kind, name.Namespace)
	}
	for _, p := range parts {
		if p == "" || p[0] == '.' || strings.ContainsAny(p, "/\x00") {
			return "", fmt.Errorf("%q is no name of an object", p)
		}
	}
	return filepath.Join(append([]string{kind.String()}, parts...)...) + suffix, nil
}

// named is the opposite of path: the object whose file is at the relative path, false where none can be.
func named(rel string) (object.Kind, object.Key, bool) {
	parts := strings.Split(rel, string(filepath.Separator))
	name, isFile := strings.CutSuffix(parts[len(parts)-1], suffix)
	kind, ok := kindOf(parts[0])
	if !ok || !isFile || name == "" || name[0] == '.' {
		return 0, object.Key{}, false
	}
	switch {
	case kind.Namespaced() && len(parts) == 3:
		return kind, object.Key{Namespace: parts[1], Name: name}, true
	case !kind.Namespaced() && len(parts) == 2:
		return kind, object.Key{Name: name}, true
	}
	return 0, object.Key{}, false
}

func kindOf(dir string) (object.Kind, bool) {
	for _, kind := range object.Kinds {
		if kind.String() == dir {
			return kind, true
		}
	}
	return 0, false
}
