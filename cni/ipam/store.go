package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Errors that package cni gives codes to.
var (
	// ErrExhausted: no address is left in a range.
	ErrExhausted = errors.New("no free pod address")
	// ErrUnavailable: an address that was asked for cannot be given.
	ErrUnavailable = errors.New("address not available")
	// ErrExists: there is a lease of that container and interface.
	ErrExists = errors.New("attachment exists")
	// ErrCorrupt: the file is not what this package wrote.
	ErrCorrupt = errors.New("leases cannot be read")
)

// Config configures a Store.
type Config struct {
	// Path of the file, made if there is none. It should lie in a tmpfs: namespaces end with a boot, and so should leases.
	Path string
	// CIDRs are the ranges, at most one of each family; a lease gets an address of each. At least one is required.
	CIDRs []netip.Prefix
	// Taken are addresses inside the ranges that are never given out, beside those that no pod may have.
	Taken map[netip.Addr]string
	// Boot tells this boot of the machine from others: what was leased before is forgotten, since all namespaces ended with
	// it. Default: nothing is forgotten.
	Boot string
}

// Store holds the leases of a node. Its methods may be called by any goroutine.
type Store struct {
	db    *bbolt.DB
	taken map[netip.Addr]string

	mu     sync.Mutex // guards the following, which are what the file holds
	pools  []pool
	leases map[Key]Lease
	owners map[netip.Addr]Key
}

// Buckets of the file, and what is in meta.
var (
	bucketLeases = []byte("leases") // containerID/ifname → Lease
	bucketMeta   = []byte("meta")
	metaVersion  = []byte("version")
	metaBoot     = []byte("boot")
	metaLast     = "last " // and a family: the address given out last
)

// version is that of the file's layout.
const version = "1"

// lockTimeout is how long Open waits for another process's lock on the file.
const lockTimeout = 2 * time.Second

// Open opens the leases. A file that cannot be read is an ErrCorrupt that says what to do, and is left as it is.
func Open(c Config) (*Store, error) {
	s := &Store{taken: c.Taken, leases: map[Key]Lease{}, owners: map[netip.Addr]Key{}}
	for _, cidr := range c.CIDRs {
		if cidr.Bits() > cidr.Addr().BitLen()-2 {
			return nil, fmt.Errorf("open leases: %v is too small for a gateway and a pod", cidr)
		}
		s.pools = append(s.pools, pool{cidr: cidr.Masked(), last: cidr.Masked().Addr()})
	}
	err := guard(func() (err error) {
		if s.db, err = bbolt.Open(c.Path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType}); err != nil {
			return err
		}
		if err := s.db.View(func(tx *bbolt.Tx) error { return s.load(tx, c.Boot) }); err != nil {
			return err
		}
		return s.db.Update(func(tx *bbolt.Tx) error { return prepare(tx, c.Boot) })
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		err = fmt.Errorf("open leases %s: another process has them open; end it, or choose another runDir", c.Path)
	case errors.Is(err, ErrCorrupt):
		err = fmt.Errorf("open leases %s: %w; move the file away and start again, then delete and remake this node's pods, which no longer have leases", c.Path, err)
	case err != nil:
		err = fmt.Errorf("open leases: %w; make the runDir writable, or choose another one", err)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// guard runs f on bbolt's mapped file, of which a damaged one makes bbolt panic or reads beyond its end.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: a page of the file is damaged", ErrCorrupt)
		}
	}()
	err = f()
	// What the kernel does not complain of, bbolt does not like in the file.
	var errno syscall.Errno
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, bolterrors.ErrTimeout) || errors.As(err, &errno) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// prepare makes the buckets, and takes away the leases of another boot.
func prepare(tx *bbolt.Tx, boot string) error {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	if isOfOtherBoot(meta, boot) {
		if err := tx.DeleteBucket(bucketLeases); err != nil {
			return err
		}
	}
	if _, err := tx.CreateBucketIfNotExists(bucketLeases); err != nil {
		return err
	}
	if boot != "" {
		if err := meta.Put(metaBoot, []byte(boot)); err != nil {
			return err
		}
	}
	return meta.Put(metaVersion, []byte(version))
}

// isOfOtherBoot reports whether the file was written before this boot. What cannot be told was not.
func isOfOtherBoot(meta *bbolt.Bucket, boot string) bool {
	former := string(meta.Get(metaBoot))
	return former != "" && boot != "" && former != boot
}

// load reads what a former daemon left.
func (s *Store) load(tx *bbolt.Tx, boot string) error {
	meta, leases := tx.Bucket(bucketMeta), tx.Bucket(bucketLeases)
	if meta == nil || leases == nil {
		return nil // made just now
	}
	if v := meta.Get(metaVersion); string(v) != version {
		return fmt.Errorf("%w: layout %q, want %q", ErrCorrupt, v, version)
	}
	for i := range s.pools {
		p := &s.pools[i]
		if a, err := netip.ParseAddr(string(meta.Get(lastKey(p.cidr)))); err == nil && p.cidr.Contains(a) {
			p.last = a
		}
	}
	if isOfOtherBoot(meta, boot) {
		return nil
	}
	return leases.ForEach(func(k, v []byte) error {
		l, err := decodeLease(v)
		if err != nil {
			return fmt.Errorf("%w: lease %q: %w", ErrCorrupt, k, err)
		}
		if l.Key.String() != string(k) {
			return fmt.Errorf("%w: lease %q says that it is %v", ErrCorrupt, k, l.Key)
		}
		for _, a := range l.Addrs {
			if other, ok := s.owners[a]; ok {
				return fmt.Errorf("%w: leases %v and %v both have %v", ErrCorrupt, other, l.Key, a)
			}
		}
		s.keep(l)
		return nil
	})
}

func lastKey(cidr netip.Prefix) []byte {
	if cidr.Addr().Is4() {
		return []byte(metaLast + "4")
	}
	return []byte(metaLast + "6")
}

// keep needs s.mu held, or nobody else to know s.
func (s *Store) keep(l Lease) {
	s.leases[l.Key] = l
	for _, a := range l.Addrs {
		s.owners[a] = l.Key
	}
}

// Close closes the file.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// Reserve leases addresses to l.Key, one of each range, and returns l with them, pending. Addresses in want are given or
// it is an ErrUnavailable; the other families get what is free. A host port that another pod has is an ErrHostPort.
func (s *Store) Reserve(l Lease, want []netip.Addr) (Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.leases[l.Key]; ok {
		return Lease{}, fmt.Errorf("%w: %v has had %v since %v", ErrExists, l.Key, join(old.Addrs), old.Since.Format(time.RFC3339))
	}
	pools := slices.Clone(s.pools)
	var err error
	if l.Addrs, err = s.chooseLocked(pools, want); err != nil {
		return Lease{}, err
	}
	l.State, l.Index = Pending, 0
	if err := l.check(); err != nil {
		return Lease{}, fmt.Errorf("lease %v: %w", l.Key, err)
	}
	if err := s.hostPortsLocked(l); err != nil {
		return Lease{}, err
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for _, p := range pools {
			if err := tx.Bucket(bucketMeta).Put(lastKey(p.cidr), []byte(p.last.String())); err != nil {
				return err
			}
		}
		return put(tx, l)
	})
	if err != nil {
		return Lease{}, fmt.Errorf("write lease %v: %w", l.Key, err)
	}
	s.pools = pools
	s.keep(l)
	return l, nil
}

// chooseLocked returns an address of each pool, and moves the pools on.
func (s *Store) chooseLocked(pools []pool, want []netip.Addr) (addrs []netip.Addr, err error) {
	for _, a := range want {
		if !slices.ContainsFunc(pools, func(p pool) bool { return p.usable(a) }) {
			return nil, fmt.Errorf("%w: %v is no address for a pod of this node", ErrUnavailable, a)
		}
		if owner := s.ownerLocked(a); owner != "" {
			return nil, fmt.Errorf("%w: %v belongs to %s", ErrUnavailable, a, owner)
		}
	}
	for i := range pools {
		p := &pools[i]
		wanted := slices.DeleteFunc(slices.Clone(want), func(a netip.Addr) bool { return !p.cidr.Contains(a) })
		switch len(wanted) {
		case 0:
			if p.last, err = p.free(s.takenLocked); err != nil {
				return nil, err
			}
			addrs = append(addrs, p.last)
		case 1:
			addrs = append(addrs, wanted[0])
		default:
			return nil, fmt.Errorf("%w: %v are several of one family; ask for one", ErrUnavailable, join(wanted))
		}
	}
	return addrs, nil
}

func (s *Store) takenLocked(a netip.Addr) bool { return s.ownerLocked(a) != "" }

// ownerLocked returns for messages to whom an address belongs, "" if it is free.
func (s *Store) ownerLocked(a netip.Addr) string {
	if k, ok := s.owners[a]; ok {
		return s.leases[k].Name()
	}
	return s.taken[a]
}

// Commit makes a pending lease an attached one, of the interface with the given number.
func (s *Store) Commit(k Key, index int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[k]
	if !ok {
		return fmt.Errorf("commit lease %v: there is none", k)
	}
	l.State, l.Index = Attached, index
	if err := s.db.Update(func(tx *bbolt.Tx) error { return put(tx, l) }); err != nil {
		return fmt.Errorf("commit lease %v: %w", k, err)
	}
	s.leases[k] = l
	return nil
}

// Release ends a lease; its addresses are free. It is no error if there is none.
func (s *Store) Release(k Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[k]
	if !ok {
		return nil
	}
	if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketLeases).Delete([]byte(k.String())) }); err != nil {
		return fmt.Errorf("release lease %v: %w", k, err)
	}
	delete(s.leases, k)
	for _, a := range l.Addrs {
		delete(s.owners, a)
	}
	return nil
}

// Get returns the lease of a key.
func (s *Store) Get(k Key) (Lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[k]
	return l, ok
}

// All returns the leases, sorted by key.
func (s *Store) All() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.leases), func(a, b Lease) int { return strings.Compare(a.Key.String(), b.Key.String()) })
}

// Available returns nil if another lease can be had now, or an ErrExhausted.
func (s *Store) Available() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.chooseLocked(slices.Clone(s.pools), nil)
	return err
}

// Outside returns those of a lease's addresses that lie in none of the ranges: the ranges were changed since.
func (s *Store) Outside(l Lease) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.Addrs), func(a netip.Addr) bool {
		return slices.ContainsFunc(s.pools, func(p pool) bool { return p.cidr.Contains(a) })
	})
}

// join writes addresses for a message.
func join(addrs []netip.Addr) string {
	var parts []string
	for _, a := range addrs {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, ", ")
}
