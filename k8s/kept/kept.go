// Package kept keeps a node's last known objects in a file, so that a daemon that starts again serves at once, before any source has
// told it anything, and where the API server is down as well.
//
// The file is a bbolt database with a bucket for each kind, in it "namespace/name" → the stripped object as CBOR (RFC 8949). It is a copy, and
// never the only one: a file that a crash has damaged is put aside, and one of another version is begun anew.
package kept

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/middleway-net/middleway/k8s/object"
)

// version is that of the file's layout and of the objects in it. It changes when a field of them does.
const version = "2"

var (
	bucketMeta  = []byte("meta")
	metaVersion = []byte("version")
)

// lockTimeout is how long Open waits for another process's lock on the file.
const lockTimeout = 2 * time.Second

// aside is what the name of a damaged file ends with from then on.
const aside = ".damaged"

// File is an open file. One goroutine uses it at a time.
type File struct {
	path string
	db   *bbolt.DB
}

// Open opens the file, made where there is none, and returns the objects in it, in no order. A damaged file is put aside, which log
// hears of; an error means that nothing can be kept there at all.
func Open(path string, log *slog.Logger) (*File, []object.Object, error) {
	f := &File{path: path}
	all, err := f.open()
	if err == nil || errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, os.ErrPermission) {
		return f.opened(all, err)
	}
	if renamed := os.Rename(path, path+aside); renamed != nil {
		return f.opened(nil, err)
	}
	log.Warn("what was known of the cluster cannot be read, and is asked for anew; the file is put aside", "file", path+aside, "err", err)
	return f.opened(f.open())
}

func (f *File) opened(all []object.Object, err error) (*File, []object.Object, error) {
	if err != nil {
		return nil, nil, fmt.Errorf("keep objects in %s: %w; make its directory writable, or choose another runDir", f.path, err)
	}
	return f, all, nil
}

func (f *File) open() (all []object.Object, err error) {
	err = guard(func() (err error) {
		f.db, err = bbolt.Open(f.path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		if err = f.db.Update(prepare); err == nil {
			err = f.db.View(func(tx *bbolt.Tx) error { all, err = load(tx); return err })
		}
		return err
	})
	if err != nil && f.db != nil {
		_ = guard(f.db.Close) // of no more use
		f.db = nil
	}
	return all, err
}

// prepare makes the buckets, and empties those of another version.
func prepare(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	same := string(meta.Get(metaVersion)) == version
	for _, kind := range object.Kinds {
		name := []byte(kind.String())
		if !same && tx.Bucket(name) != nil {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	return meta.Put(metaVersion, []byte(version))
}

func load(tx *bbolt.Tx) (all []object.Object, err error) {
	for _, kind := range object.Kinds {
		var last []byte
		err := tx.Bucket([]byte(kind.String())).ForEach(func(k, v []byte) error {
			if len(k) > maxKey || last != nil && bytes.Compare(last, k) >= 0 {
				return fmt.Errorf("the keys of %s are out of order", kind) // pages in a ring would never end
			}
			last = k
			o, err := decode(kind, string(k), v)
			all = append(all, o)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// maxKey bounds a key: names and namespaces have at most 253 bytes (RFC 1123).
const maxKey = 2 * 256

// castagnoli is the polynomial of the checksum in front of each object: bbolt has none but that of its first page.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns an object as it is kept: a checksum of 4 bytes, and CBOR.
func encode(o object.Object) ([]byte, error) {
	text, err := cbor.Marshal(o)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(text, castagnoli)), text...), nil
}

// decode reads an object under its key.
func decode(kind object.Kind, key string, b []byte) (object.Object, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return nil, fmt.Errorf("%s %q: the checksum is wrong", kind, key)
	}
	return unmarshal(kind, key, b[4:])
}

func unmarshal(kind object.Kind, key string, text []byte) (object.Object, error) {
	o := map[object.Kind]func() object.Object{
		object.Nodes:          func() object.Object { return &object.Node{} },
		object.Namespaces:     func() object.Object { return &object.Namespace{} },
		object.Pods:           func() object.Object { return &object.Pod{} },
		object.Services:       func() object.Object { return &object.Service{} },
		object.EndpointSlices: func() object.Object { return &object.EndpointSlice{} },
	}[kind]()
	if err := cbor.Unmarshal(text, o); err != nil {
		return nil, fmt.Errorf("%s %q: %w", kind, key, err)
	}
	if got := o.Named().String(); got != key {
		return nil, fmt.Errorf("%s %q: the object says that it is %q", kind, key, got)
	}
	object.Share(o)
	return o, nil
}

// Change is what becomes of a name: the object of it, or nil where there is none any more.
type Change struct {
	Kind   object.Kind
	Name   object.Key
	Object object.Object
}

// fill is how full pages become that are split: the first set, which is nearly all of it, comes in order.
const fill = 0.9

// Write writes changes, all of them or none. It sorts them.
func (f *File) Write(changes []Change) error {
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name.Namespace, b.Name.Namespace), cmp.Compare(a.Name.Name, b.Name.Name))
	})
	return guard(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error {
			for _, c := range changes {
				if err := write(tx.Bucket([]byte(c.Kind.String())), c); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func write(b *bbolt.Bucket, c Change) error {
	b.FillPercent = fill
	key := []byte(c.Name.String())
	if c.Object == nil {
		return b.Delete(key)
	}
	text, err := encode(c.Object)
	if err != nil {
		return err
	}
	return b.Put(key, text)
}

// Close closes the file.
func (f *File) Close() error { return guard(f.db.Close) }

// guard turns bbolt's panics over a damaged file into errors, and the faults of reading past the end of one that was cut.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			what, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = fmt.Errorf("damaged: %s", what)
		}
	}()
	return do()
}
