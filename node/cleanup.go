package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/stack/flow"
)

// Cleanup removes what a daemon with this configuration leaves for the next one: the network configuration that it wrote, the host's device
// with its routes, the pods' devices where their namespaces still are, the state in the run directory, and what the Node object says of it. A
// daemon that still runs is an error. With toFlannel the Node object keeps the annotations by which flannel's nodes know each other, so that flannel takes
// the VTEP's address from there and its peers need not learn another.
// It removes as much as it can.
func Cleanup(c Config, toFlannel bool, log *slog.Logger) error {
	unlock, err := lockState(&c)
	if err != nil {
		return err
	}
	var errs []error
	if c.CNI.Conflist != "" { // first, so that no pod is attached by what goes
		errs = append(errs, c.conflist().Remove())
	}
	if c.HostDevice != noHostDevice {
		errs = append(errs, link.RemoveHost(c.HostDevice))
	}
	for _, p := range c.Pods {
		switch err := link.Remove(p.Netns, podDevice, ""); {
		case errors.Is(err, fs.ErrNotExist):
			log.Info("pod has ended, and its device with it", "pod", p.Name)
		case err != nil:
			errs = append(errs, fmt.Errorf("clean up pod %s: %w", p.Name, err))
		}
	}
	errs = append(errs, cleanupLeases(&c))
	left := []string{leasesName, podsName, selfName, keptName, secretName, socketName, successorName}
	if filepath.Dir(c.FDStore) == filepath.Clean(c.RunDir) {
		left = append(left, filepath.Base(c.FDStore)) // of a store that was killed
	}
	for _, name := range append(left, flowsName) { // the lock comes last
		if err := os.Remove(filepath.Join(c.RunDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove state: %w", err))
		}
	}
	errs = append(errs, unlock())
	errs = append(errs, withdraw(&c, toFlannel, log))
	_ = os.Remove(c.RunDir) // stays if somebody else has something in it
	return errors.Join(errs...)
}

// podDevice is the name of the device of a pod in the configuration.
const podDevice = "eth0"

// cleanupLeases removes the devices of pods that the CNI plugin has attached, and what lies at its socket, with or without
// leases.
func cleanupLeases(c *Config) error {
	path := filepath.Join(c.RunDir, leasesName)
	if !fileExists(path) {
		return cni.Cleanup(nil, c.CNI.Socket)
	}
	leases, err := ipam.Open(ipam.Config{Path: path, CIDRs: c.PodCIDRs, Boot: bootID()})
	if err != nil {
		return errors.Join(err, cni.Cleanup(nil, c.CNI.Socket))
	}
	return errors.Join(cni.Cleanup(leases.All(), c.CNI.Socket), leases.Close())
}

// lockState keeps daemons out of the run directory. A directory without a flow table is that of no daemon.
func lockState(c *Config) (unlock func() error, err error) {
	path := filepath.Join(c.RunDir, flowsName)
	if !fileExists(path) {
		return func() error { return nil }, nil
	}
	flows, err := flow.Open(path, c.FlowEntries)
	if errors.Is(err, flow.ErrInUse) {
		return nil, fmt.Errorf("another middleway node runs on %s; end it before what it leaves is removed", c.RunDir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the run directory: %w", err)
	}
	return flows.Close, nil
}
