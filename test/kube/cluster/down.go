package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/plan"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// Down takes away whatever there is of the cluster in dir, however far it came: processes, namespaces, devices, cgroups, what
// nodes kept. Logs and results of tests stay.
func Down(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster's namespaces and cgroups need root: call it by sudo -E")
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return clear(Config{Plan: plan.Plan{Name: filepath.Base(dir)}, Dir: dir})
}

// clear finds by name what belongs to the cluster: its state file may be missing or tell of less than there is.
func clear(c Config) error {
	if err := c.cgroup("").Remove(20 * time.Second); err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	namespaces, err := sandbox.ListNetns(c.Owns)
	if err != nil {
		return err
	}
	for _, name := range namespaces {
		if err := sandbox.DeleteNetns(name); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(c.Dir, "nodes")); err != nil {
		return fmt.Errorf("remove what nodes kept: %w", err)
	}
	if err := os.Remove(c.stateFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// detached is for a process that goes on after this one.
func detached() *unix.SysProcAttr { return &unix.SysProcAttr{Setsid: true} }
