// Package dns is the cluster's DNS, answered on the node where the client is. It knows names and messages, no packets and nothing of
// Kubernetes.
//
//	query over UDP ─► Server.Answer, in the worker ─┬─► Zone     names of the cluster: always answered here
//	                                                ├─► cache    other names that are known
//	                                                └─► no answer yet: the query goes the long way, as those over TCP do
//	Server.ServeUDP, ServeTCP, in goroutines ───────┬─► Answer
//	                                                └─► upstreams ─► cache
//
// A Zone is an immutable table that holds the records of the Kubernetes DNS specification, version 1.1.0
// (https://github.com/kubernetes/dns/blob/master/docs/specification.md); With makes the next one and shares with it what has not changed.
// What stands on the way of Answer neither allocates, locks nor waits.
package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Defaults of a ZoneConfig.
const (
	DefaultDomain = "cluster.local"
	DefaultTTL    = 5 * time.Second
)

// schemaVersion is the version of the specification, which the zone tells (section 2.2).
const schemaVersion = "1.1.0"

// PodNames says which names of pods exist: 10-244-1-5.default.pod.cluster.local (specification, section 2.6).
type PodNames uint8

// PodNames.
const (
	// PodsInsecure: every address has a name in every namespace, whether or not there is such a pod.
	PodsInsecure PodNames = iota
	// PodsDisabled: there are none.
	PodsDisabled
	// PodsVerified: those of pods of the namespace.
	PodsVerified
)

// ZoneConfig configures a Zone.
type ZoneConfig struct {
	// Domain is the cluster's. Default DefaultDomain.
	Domain string
	// Addresses are those at which the zone is served: what the name of its name server means.
	Addresses []netip.Addr
	// Reverse are ranges of the cluster's addresses, as those of pods and Services: names of addresses in them that have none are told not to
	// exist. Those of others are asked upstream.
	Reverse []netip.Prefix
	// Pods says which names of pods exist. Default PodsInsecure.
	Pods PodNames
	// TTL is the time to live of all records, and of the news that a name does not exist: whole seconds, at most an hour. Default DefaultTTL.
	TTL time.Duration
}

// Zone is the cluster's zone: an immutable table. Its zero value is no zone; NewZone makes one.
type Zone struct {
	*constants
	serial     uint32
	services   table[*service] // by key
	addrs      table[*service] // by each address of a Service and its endpoints
	namespaces table[string]   // labels in wire format
	pods       table[*pod]     // by key
	podAddrs   table[*pod]     // by namespace and address
}

// constants are what all tables of a zone share.
type constants struct {
	domain     string // in wire format
	suffix     string // "svc" and the domain
	v4         [][4]byte
	v6         [][16]byte
	reverse    []netip.Prefix
	podNames   PodNames
	ttl        uint32 // seconds
	nameServer string // labels in front of the domain
}

// pod is a pod as its name is verified.
type pod struct {
	key, namespace string // in wire format
	addrs          []netip.Addr
}

// NewZone makes a zone without Services.
func NewZone(c ZoneConfig) (*Zone, error) {
	if c.Domain == "" {
		c.Domain = DefaultDomain
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	domain, err := toWire(c.Domain)
	if err != nil {
		return nil, fmt.Errorf("cluster domain: %w", err)
	}
	if domain == "\x00" {
		return nil, errors.New("cluster domain: the root is none; a name like cluster.local is needed")
	}
	if c.TTL < 0 || c.TTL > time.Hour || c.TTL%time.Second != 0 {
		return nil, fmt.Errorf("time to live %v: whole seconds up to an hour are possible", c.TTL)
	}
	k := &constants{
		domain: domain, suffix: "\x03svc" + domain, nameServer: "\x02ns\x03dns",
		reverse: c.Reverse, podNames: c.Pods, ttl: uint32(c.TTL / time.Second),
	}
	k.v4, k.v6 = families(c.Addresses)
	return &Zone{constants: k, serial: uint32(time.Now().Unix())}, nil
}

// servedAt reports whether the zone is served at an address.
func (z *Zone) servedAt(a netip.Addr) bool {
	if a = a.Unmap(); a.Is4() {
		return slices.Contains(z.v4, a.As4())
	}
	return slices.Contains(z.v6, a.As16())
}

// Changes are what With changes. Services and pods are named "namespace/name".
type Changes struct {
	// Services holds those that are new or different; nil removes one.
	Services map[string]*Service
	// Namespaces holds true for those that exist, and false for those that no longer do.
	Namespaces map[string]bool
	// Pods holds the addresses of pods; nil removes one. Only PodsVerified needs them.
	Pods map[string][]netip.Addr
}

// With returns the zone as it is after the changes. What cannot be in a zone is left out, and the error says why; the zone is valid
// nevertheless.
func (z *Zone) With(c Changes) (*Zone, error) {
	next := *z
	next.serial++
	return &next, errors.Join(next.changeServices(c.Services), next.changeNamespaces(c.Namespaces), next.changePods(c.Pods))
}

func (z *Zone) changeServices(changed map[string]*Service) error {
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	services, addrs := z.services.edit(), z.addrs.edit()
	for id, s := range changed {
		key, err := keyOf(id)
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", id, err))
			continue
		}
		hash := hashOfString(key)
		if old := findService(services.under(hash), key); old != nil {
			services.remove(hash, old)
			old.allAddrs(func(a [16]byte) { addrs.remove(hashOf(a[:]), old) })
		}
		if s == nil {
			continue
		}
		c, err := s.compile()
		errs = append(errs, err)
		if c != nil {
			services.add(hash, c)
			c.allAddrs(func(a [16]byte) { addrs.add(hashOf(a[:]), c) })
		}
	}
	z.services, z.addrs = services.table, addrs.table
	return errors.Join(errs...)
}

func (z *Zone) changeNamespaces(changed map[string]bool) error {
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	e := z.namespaces.edit()
	for ns, exists := range changed {
		key, err := labelsOf(ns)
		if err != nil {
			errs = append(errs, fmt.Errorf("namespace: %w", err))
			continue
		}
		hash := hashOfString(key)
		e.remove(hash, key)
		if exists {
			e.add(hash, key)
		}
	}
	z.namespaces = e.table
	return errors.Join(errs...)
}

func (z *Zone) changePods(changed map[string][]netip.Addr) error {
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	pods, addrs := z.pods.edit(), z.podAddrs.edit()
	for id, at := range changed {
		ns, _, _ := strings.Cut(id, "/")
		labels, err := labelsOf(ns)
		if err != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", id, err))
			continue
		}
		hash := hashOfString(id)
		if old := findPod(pods.under(hash), id); old != nil {
			pods.remove(hash, old)
			for _, a := range old.addrs {
				addrs.remove(old.hash(a), old)
			}
		}
		if len(at) == 0 {
			continue
		}
		p := &pod{key: id, namespace: labels, addrs: at}
		pods.add(hash, p)
		for _, a := range at {
			addrs.add(p.hash(a), p)
		}
	}
	z.pods, z.podAddrs = pods.table, addrs.table
	return errors.Join(errs...)
}

// hash returns where a pod's name is found.
func (p *pod) hash(a netip.Addr) uint32 {
	b := a.As16()
	return hashOf(b[:])
}

// keyOf returns the key of a Service "namespace/name".
func keyOf(id string) (string, error) {
	ns, name, _ := strings.Cut(id, "/")
	return labelsOf(name, ns)
}

func findService(slots []slot[*service], key string) *service {
	for _, s := range slots {
		if s.value.key == key {
			return s.value
		}
	}
	return nil
}

func findPod(slots []slot[*pod], key string) *pod {
	for _, s := range slots {
		if s.value.key == key {
			return s.value
		}
	}
	return nil
}

// service returns the Service with the given labels of name and namespace; nil if there is none.
func (z *Zone) service(labels []byte) *service {
	hash := hashOf(labels)
	for _, s := range z.services.under(hash) {
		if s.hash == hash && s.value.key == string(labels) {
			return s.value
		}
	}
	return nil
}

func (z *Zone) hasNamespace(label []byte) bool {
	hash := hashOf(label)
	for _, s := range z.namespaces.under(hash) {
		if s.hash == hash && s.value == string(label) {
			return true
		}
	}
	return false
}

func (z *Zone) hasPod(namespace []byte, a netip.Addr) bool {
	b := a.As16()
	hash := hashOf(b[:])
	for _, s := range z.podAddrs.under(hash) {
		if s.hash != hash || s.value.namespace != string(namespace) {
			continue
		}
		for _, has := range s.value.addrs {
			if has == a {
				return true
			}
		}
	}
	return false
}

// soa appends the data of the zone's SOA record (RFC 1035, section 3.3.13). apex is where the domain stands in the answer, 0 if nowhere.
func (z *Zone) soa(b []byte, apex int) []byte {
	const refresh, retry, expire = 7200, 1800, 86400 // seconds; nobody transfers the zone
	b = z.appendDomain(append(b, z.nameServer...), apex)
	b = z.appendDomain(append(b, "\x0ahostmaster"...), apex)
	for _, v := range [...]uint32{z.serial, refresh, retry, expire, z.ttl} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// appendDomain appends the domain, or a pointer to where it stands if that is not 0.
func (z *Zone) appendDomain(b []byte, at int) []byte {
	if at == 0 {
		return append(b, z.domain...)
	}
	return binary.BigEndian.AppendUint16(b, 0xC000|uint16(at))
}
