package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/stack"
)

// Attachment is a pod that the CNI plugin has attached, in a Status.
type Attachment struct {
	Namespace   string       `json:"namespace"` // of the pod; "" where the runtime told none, as Name
	Name        string       `json:"name"`
	ContainerID string       `json:"containerID"`
	IfName      string       `json:"ifname"`
	Device      string       `json:"device"` // "multi-queue" or "portable"
	Addrs       []netip.Addr `json:"addrs"`
	Netns       string       `json:"netns"` // path of the network namespace
	Since       time.Time    `json:"since"`
	// State is "attached"; "pending" while the plugin is at work; or "lost" while the daemon tries to take the pod up, and once
	// somebody has removed its interface.
	State string `json:"state"`
}

// leasesName is the leases' name in the run directory.
const leasesName = "leases.db"

func (n *Node) leaseFile() string { return filepath.Join(n.config.RunDir, leasesName) }

// openLeases opens what former daemons leased, and sees to it that the configuration's pods do not meet those of the CNI
// plugin.
func (n *Node) openLeases() (err error) {
	taken, field := map[netip.Addr]string{}, map[netip.Addr]int{}
	for i, p := range n.config.Pods {
		for _, a := range p.Addresses {
			taken[a], field[a] = p.Name, i
		}
	}
	_, missing := os.Stat(n.leaseFile())
	n.madeLeases = errors.Is(missing, fs.ErrNotExist)
	n.leases, err = ipam.Open(ipam.Config{Path: n.leaseFile(), CIDRs: n.config.PodCIDRs, Taken: taken, Boot: bootID()})
	if err != nil {
		n.leases = nil
		n.madeLeases = n.madeLeases && fileExists(n.leaseFile())
		return err
	}
	for _, l := range n.leases.All() {
		for _, a := range l.Addrs {
			if i, ok := field[a]; ok {
				return fmt.Errorf("pods[%d].addresses: %v is leased to pod %s; choose another address, or delete that pod first", i, a, l.Name())
			}
		}
	}
	return nil
}

// bootID returns what tells one boot of the machine from another, "" if nothing does.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openCNI takes up the pods that the plugin has attached to former daemons, and listens for it.
func (n *Node) openCNI() (err error) {
	n.cni, err = cni.New(cni.Config{
		Socket: n.config.CNI.Socket, Leases: n.leases, Node: attacher{n},
		Interval: time.Duration(n.config.CNI.Interval), Changed: n.setHostPorts, Logger: n.log,
		Added: func(took time.Duration) { n.adds.Observe(took.Seconds()) },
	})
	return err
}

func (n *Node) attachments() []Attachment {
	list := []Attachment{}
	for _, l := range n.leases.All() {
		a := Attachment{
			Namespace: l.Pod.Namespace, Name: l.Pod.Name, ContainerID: l.ContainerID, IfName: l.IfName, Device: "multi-queue",
			Addrs: l.Addrs, Netns: l.Netns, Since: l.Since, State: string(l.State),
		}
		if l.Portable {
			a.Device = "portable"
		}
		if l.State == ipam.Attached && (!n.cni.Attached(l.Key) || n.cni.Lost(l.Key)) {
			a.State = "lost"
		}
		list = append(list, a)
	}
	return list
}

// attacher is the node as package cni sees it.
type attacher struct{ n *Node }

var _ cni.Node = attacher{}

// Grant returns what a new interface with these addresses gets.
func (a attacher) Grant(addrs []netip.Addr) cni.Grant {
	return cni.Grant{
		Gateways: a.n.gatewaysOf(addrs), MTU: a.n.mtu, Queues: stack.Workers(a.n.config.Workers),
		Portable: a.n.config.PortableDevices, MaxSegments: maxSegments(a.n.mtu),
	}
}

// Adopt moves the packets of a device that the plugin has made.
func (a attacher) Adopt(l ipam.Lease, queues []int) (cni.Attachment, error) {
	c := link.Config{Name: l.IfName, MTU: a.n.mtu, Without: a.n.config.Offloads.device()}
	var dev device
	if l.Portable {
		d, err := link.AdoptPortable(c, l.NetnsInode, queues)
		if err != nil {
			return nil, err
		}
		dev = single{d}
	} else {
		d, err := link.Adopt(c, l.NetnsInode, queues)
		if err != nil {
			return nil, err
		}
		dev = fast{d}
	}
	return a.attach(l, dev)
}

// Reopen takes up a device that a former daemon has left.
func (a attacher) Reopen(l ipam.Lease) (cni.Attachment, error) {
	c := a.n.linkConfig(l.Netns, l.Addrs)
	c.Name, c.Index = l.IfName, l.Index
	dev, err := openDevice(c, l.Portable)
	if err != nil {
		return nil, err
	}
	return a.attach(l, dev)
}

func (a attacher) attach(l ipam.Lease, dev device) (cni.Attachment, error) {
	id, err := a.n.hand(l.Name(), l.Addrs, dev)
	if err != nil {
		return nil, err
	}
	a.n.attached(l)
	return leased{a.n, id, dev, l}, nil
}

// leased is a device of a pod that the CNI plugin has attached.
type leased struct {
	n     *Node
	id    uint32
	dev   device
	lease ipam.Lease
}

// Keep makes the device outlive the daemon.
func (l leased) Keep() error { return l.dev.SetPersist(true) }

// Lost reports whether somebody else has removed the device.
func (l leased) Lost() bool { return l.n.stack.Lost(l.id) }

// Remove ends the attachment and the device, which somebody may have removed already.
func (l leased) Remove() error {
	l.n.detached(l.lease)
	err := l.dev.SetPersist(false)
	if errors.Is(err, unix.EBADFD) {
		err = nil
	}
	return errors.Join(err, l.n.stack.Detach(l.id))
}
