package scenario

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The DaemonSet of the manifest.
const (
	daemonNamespace = "middleway"
	daemonSet       = "daemonset/middleway"
)

// rollout gives all nodes new daemons, as an update does, and waits until they have them.
func (t *T) rollout(ctx context.Context) error {
	if _, err := t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "rollout", "restart", daemonSet); err != nil {
		return err
	}
	_, err := t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "rollout", "status", daemonSet, "--timeout=5m")
	return err
}

// update is what happens when an image or the configuration is another.
func update(ctx context.Context, t *T) error {
	return during(ctx, t, func(ctx context.Context) error {
		begin := time.Now()
		err := t.rollout(ctx)
		t.Figures["update s"] = time.Since(begin).Seconds()
		return err
	}, nil)
}

// cutInCrash is how many requests to a NodePort may fail when the daemon that they came to is killed: those that it was answering, at most one of each
// worker. Who comes afterwards waits for the next daemon.
const cutInCrash = trafficWorkers

// crash kills each daemon once. They are new, since kubelet waits longer and longer before it starts what ends again and again.
func crash(ctx context.Context, t *T) error {
	if err := t.rollout(ctx); err != nil {
		return err
	}
	return during(ctx, t, func(ctx context.Context) error {
		for _, n := range t.Cluster.AllNodes() {
			killed, err := n.KillProgram("middleway", "node")
			if err == nil && killed == 0 {
				err = fmt.Errorf("no daemon of middleway runs on %s", n.Name)
			}
			if err != nil {
				return err
			}
			t.Say("the daemon of %s is killed", n.Name)
			if err := after(ctx, 15*time.Second); err != nil {
				return err
			}
		}
		return nil
	}, map[string]int{nodePort: cutInCrash})
}

// restart kills what is beside the daemon on each node. Pods live on without.
func restart(ctx context.Context, t *T) error {
	return during(ctx, t, func(ctx context.Context) error {
		for _, n := range t.Cluster.AllNodes() {
			for _, component := range []string{"kubelet", "containerd"} {
				if err := n.Kill(ctx, component, unix.SIGKILL); err != nil {
					return err
				}
				t.Say("%s of %s is killed", component, n.Name)
				if err := after(ctx, 10*time.Second); err != nil {
					return err
				}
			}
		}
		return nil
	}, nil)
}
