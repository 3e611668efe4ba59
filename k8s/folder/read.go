package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/middleway-net/middleway/k8s/object"
)

// list returns the relative paths of all objects' files, and of the directories that hold them. What vanishes meanwhile is left
// out.
func list(dir string) (files, dirs map[string]bool, err error) {
	files, dirs = map[string]bool{}, map[string]bool{".": true}
	for _, kind := range object.Kinds {
		err = errors.Join(err, fs.WalkDir(os.DirFS(dir), kind.String(), func(name string, d fs.DirEntry, err error) error {
			rel := filepath.FromSlash(name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && !holdsObjects(rel):
				return fs.SkipDir
			case d.IsDir():
				dirs[rel] = true
			default:
				if _, _, ok := named(rel); ok {
					files[rel] = true
				}
			}
			return nil
		}))
	}
	return files, dirs, err
}

// holdsObjects reports whether objects' files lie in the directory, or in one that lies there.
func holdsObjects(rel string) bool {
	parts := strings.Split(rel, string(filepath.Separator))
	kind, ok := kindOf(parts[0])
	return ok && (len(parts) == 1 || len(parts) == 2 && kind.Namespaced() && parts[1][0] != '.')
}

// decode reads the text of the file at the relative path. The object is nil if the text is not of that object; else the error
// says what of it is left out, as that of object.From.
func decode(rel string, text []byte) (object.Object, error) {
	kind, name, ok := named(rel)
	if !ok {
		return nil, errors.New("the name is none of an object's file")
	}
	api := reflect.New(apis[kind].object).Interface()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, api); err != nil {
		return nil, fmt.Errorf("this is no %s: %w", apis[kind].Kind, err)
	}
	if err := check(kind, name, api); err != nil {
		return nil, err
	}
	return object.From(api)
}

// check compares what an object says about itself with where it lies.
func check(kind object.Kind, name object.Key, api any) error {
	m := reflect.ValueOf(api).Elem().FieldByName("TypeMeta").Interface().(metav1.TypeMeta)
	o := api.(metav1.Object)
	for _, f := range []struct{ field, got, want string }{
		{"apiVersion", m.APIVersion, apis[kind].APIVersion},
		{"kind", m.Kind, apis[kind].Kind},
		{"metadata.name", o.GetName(), name.Name},
		{"metadata.namespace", o.GetNamespace(), name.Namespace},
	} {
		if f.got != f.want {
			return fmt.Errorf("%s: it is %q, but what lies here has %q", f.field, f.got, f.want)
		}
	}
	return nil
}
