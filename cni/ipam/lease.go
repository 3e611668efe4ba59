// Package ipam leases the addresses of this node's pods, and the node's ports that lead to them (host ports).
//
// A lease is written before the pod's device exists and removed after it has gone, so that whatever instant a daemon dies
// at, the next one finds in the leases everything that may be left of a pod:
//
//	Reserve ──► pending ──► Commit ──► attached ──► Release
//	               └──────── Release ◄─────┘
//
// The leases lie in one bbolt file, which a crash leaves as it was before or after a transaction. Package cni decides
// what happens to the devices; this package knows nothing but addresses, ports and to whom they were given.
package ipam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// Key names a lease: one interface of one container. The container runtime never uses a pair twice at the same time.
type Key struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// String returns the key as messages show it.
func (k Key) String() string { return k.ContainerID + "/" + k.IfName }

// Pod is whom the container runtime said the container belongs to; all fields may be empty.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// State is how far an attachment has come.
type State string

const (
	// Pending: the device may or may not exist; nobody was told that the pod has a network.
	Pending State = "pending"
	// Attached: the device is there and outlives the daemon.
	Attached State = "attached"
)

// Lease is the addresses of one interface and everything needed to find it again.
type Lease struct {
	Key
	// Network is the name of the CNI network that asked.
	Network string `json:"network"`
	Pod     Pod    `json:"pod,omitzero"`
	// Addrs are the interface's, at most one of each family.
	Addrs []netip.Addr `json:"addrs"`
	// PortMappings are the ports of the node that lead to the interface; no two pods share one.
	PortMappings []PortMapping `json:"portMappings,omitempty"`
	// Netns is the path of the pod's network namespace; a path can come to name another one, so its device and inode number
	// tell whether it still is the same.
	Netns      string `json:"netns"`
	NetnsDev   uint64 `json:"netnsDev"`
	NetnsInode uint64 `json:"netnsInode"`
	// PIDNS is the inode number of the daemon's pid namespace, outside which a path like /proc/4711/ns/net names another
	// process; 0 if it is not known.
	PIDNS uint64 `json:"pidns,omitempty"`
	// Index is the interface's number in the namespace, 0 while pending.
	Index int `json:"index,omitempty"`
	// Portable: the device has one queue and was made for the portable back end.
	Portable bool      `json:"portable,omitempty"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
}

// Name returns the lease's pod for messages: namespace/name, or the container where the runtime told no pod.
func (l Lease) Name() string {
	if l.Pod.Name == "" {
		return l.Key.String()
	}
	return l.Pod.Namespace + "/" + l.Pod.Name
}

// decodeLease reads what encode wrote and refuses anything else.
func decodeLease(b []byte) (l Lease, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Lease{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Lease{}, errors.New("something follows the lease")
	}
	return l, l.check()
}

func (l *Lease) check() error {
	switch {
	case l.ContainerID == "" || strings.Contains(l.ContainerID, "/") || l.IfName == "" || l.Netns == "":
		return errors.New("container, interface and network namespace are needed")
	case l.State != Pending && l.State != Attached:
		return fmt.Errorf("state %q is not known", l.State)
	case len(l.Addrs) == 0 || len(l.Addrs) > 2 || len(l.Addrs) == 2 && l.Addrs[0].Is4() == l.Addrs[1].Is4():
		return fmt.Errorf("addresses %v: want at most one of each family", l.Addrs)
	case slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() || a.Zone() != "" }):
		return fmt.Errorf("addresses %v are not those of a pod", l.Addrs)
	}
	return CheckPortMappings(l.PortMappings)
}

// put writes a lease in a transaction.
func put(tx *bbolt.Tx, l Lease) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketLeases).Put([]byte(l.Key.String()), b)
}
