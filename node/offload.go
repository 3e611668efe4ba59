package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/middleway-net/middleway/stack/tun"
	"github.com/middleway-net/middleway/tunnel"
)

// Offloads says which offloads are used: work on packets that kernel, device or peer do in place of whoever sends or receives,
// or many packets at once. What a kernel lacks is found out at the start, by trying, and done without. Each is there to be
// turned off where it is in doubt; everything works without it, slower.
type Offloads struct {
	// UDPSegment sends datagrams to peers in trains (UDP_SEGMENT; ethtool: tx-udp-segmentation). Without it each datagram passes
	// the kernel by itself, which costs most of the throughput between nodes.
	UDPSegment Switch `json:"udpSegment,omitempty"`
	// UDPGRO receives datagrams of peers in trains (UDP_GRO; ethtool: rx-udp-gro-forwarding). Without it each datagram is
	// received by itself.
	UDPGRO Switch `json:"udpGRO,omitempty"`
	// TSO passes TCP's super-packets of up to 64 KiB from and to the pods whole (ethtool: tcp-segmentation-offload). Without it
	// each packet of the MTU is read and written by itself, which costs most of the throughput.
	TSO Switch `json:"tso,omitempty"`
	// USO does so for UDP's (ethtool: tx-udp-segmentation), which QUIC sends. Without it their datagrams come one by one.
	USO Switch `json:"uso,omitempty"`
	// Checksum leaves checksums between pods of a node out (ethtool: tx-checksumming). Without it pods sum what they send and
	// verify what they get; TSO and USO need it, and are off too.
	Checksum Switch `json:"checksum,omitempty"`
	// RemoteChecksum leaves inner checksums to the peer's pod (VXLAN remote checksum offload), between middleway nodes; the
	// outer checksum covers the bytes. Without it they are summed here. What a peer sends so before it knows is taken.
	RemoteChecksum Switch `json:"remoteChecksum,omitempty"`
}

// Switch is "auto" or "off". Default auto: on where it is there.
type Switch string

// The values of a Switch.
const (
	Auto Switch = "auto"
	Off  Switch = "off"
)

// UnmarshalText reads a word. What writes YAML 1.1 makes false of off, and true of on.
func (s *Switch) UnmarshalText(b []byte) error {
	switch text := string(b); text {
	case "":
		*s = Auto
	case "false":
		*s = Off
	case "true":
		*s = "on"
	default:
		*s = Switch(text)
	}
	return nil
}

// check finds the first switch that is neither auto nor off.
func (o *Offloads) check() error {
	for _, f := range []struct {
		name  string
		value Switch
	}{
		{"udpSegment", o.UDPSegment}, {"udpGRO", o.UDPGRO}, {"tso", o.TSO}, {"uso", o.USO}, {"checksum", o.Checksum},
		{"remoteChecksum", o.RemoteChecksum},
	} {
		if f.value != "" && f.value != Auto && f.value != Off {
			return fmt.Errorf("offloads.%s: %s is neither auto nor off; auto uses it where it is there", f.name, f.value)
		}
	}
	return nil
}

func (o Offloads) tunnel() tunnel.Offloads {
	return tunnel.Offloads{Segment: o.UDPSegment == Off, GRO: o.UDPGRO == Off, RemoteChecksum: o.RemoteChecksum == Off}
}

func (o Offloads) device() tun.Offloads {
	return tun.Offloads{Checksum: o.Checksum == Off, TSO: o.TSO == Off, USO: o.USO == Off}
}

// Offload is the state of an offload: on, off or missing, and why if not on.
type Offload struct {
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

// The states of an offload.
const (
	offloadOn      = "on"
	offloadOff     = "off"
	offloadMissing = "missing"
)

func offload(off Switch, missing string) Offload {
	switch {
	case off == Off:
		return Offload{offloadOff, "by configuration"}
	case missing != "":
		return Offload{offloadMissing, missing}
	}
	return Offload{State: offloadOn}
}

// probeOffloads finds out what the kernel has, for the status; tunnel and devices find out for themselves what they use. Where
// no device can be made at all, it is the first to meet that.
func (n *Node) probeOffloads() error {
	c := n.config.Offloads
	_, lacks := n.tunnel.Offloads()
	n.offloads = map[string]Offload{
		"udpSegment":     offload(c.UDPSegment, reason(lacks.Segment)),
		"udpGRO":         offload(c.UDPGRO, reason(lacks.GRO)),
		"remoteChecksum": offload(c.RemoteChecksum, ""),
	}
	devices, err := deviceOffloads(c, n.config.PortableDevices)
	if err != nil {
		return err
	}
	maps.Copy(n.offloads, devices)
	for _, name := range slices.Sorted(maps.Keys(n.offloads)) {
		if o := n.offloads[name]; o.State == offloadMissing {
			n.log.Warn("an offload is missing, packets take the slower way", "offload", name, "why", o.Why)
		}
	}
	return nil
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return "the kernel refuses it: " + err.Error()
}

// deviceOffloads tells the offloads of pods' devices.
func deviceOffloads(c Offloads, portable bool) (map[string]Offload, error) {
	if portable {
		o := Offload{offloadOff, "portableDevices: super-packets are split and merged in userspace"}
		return map[string]Offload{"checksum": o, "tso": o, "uso": o}, nil
	}
	has, err := tun.Probe(tun.Offloads{})
	if err != nil {
		return nil, fmt.Errorf("%w; `middleway doctor` tells what else this machine lacks", err)
	}
	state := func(s Switch, there bool) Offload {
		if !there {
			return offload(s, "the kernel's TUN devices do not have it")
		}
		return offload(s, "")
	}
	all := map[string]Offload{"checksum": state(c.Checksum, has.Checksum), "tso": state(c.TSO, has.TSO), "uso": state(c.USO, has.USO)}
	for _, name := range []string{"tso", "uso"} {
		if c.Checksum == Off && all[name].State == offloadOn {
			all[name] = Offload{offloadOff, "it needs checksum, which is off by configuration"}
		}
	}
	return all, nil
}
