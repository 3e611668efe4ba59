package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// mistaken is a line of the daemon's configuration that can be read, and by which it cannot work: no node has this interface.
const mistaken = "underlay: {interface: mw-nowhere}\n"

// stopsWithin is how long an update that goes wrong is looked at: one that does not stop has come to the second node by then.
const stopsWithin = 45 * time.Second

// mistake is an update that goes wrong, and is taken back: it stops at the first node, where the former daemon goes on.
func mistake(ctx context.Context, t *T) error {
	right, err := t.configuration(ctx)
	if err != nil {
		return err
	}
	return during(ctx, t, func(ctx context.Context) (err error) {
		defer func() { err = errors.Join(err, t.configure(ctx, right), t.rollout(ctx)) }()
		if err := t.configure(ctx, right+mistaken); err != nil {
			return err
		}
		if _, err := t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "rollout", "restart", daemonSet); err != nil {
			return err
		}
		if err := after(ctx, stopsWithin); err != nil {
			return err
		}
		pods, err := t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "get", "pods", "-l", "app=middleway", "-o",
			`jsonpath={range .items[*]}{.metadata.labels.controller-revision-hash}{"\n"}{end}`)
		if err != nil {
			return err
		}
		of := map[string]int{} // pods, by revision
		for _, revision := range strings.Fields(pods) {
			of[revision]++
		}
		counts := slices.Sorted(maps.Values(of))
		t.Say("after %v there are daemons of %d revisions, %v", stopsWithin, len(of), counts)
		if !slices.Equal(counts, []int{1, len(t.Cluster.AllNodes())}) {
			return errors.New("the update did not stop at the first node, where the new daemon is beside the former one")
		}
		return nil
	}, map[string]int{nodePort: cutInCrash})
}

// configuration returns the daemons' configuration.
func (t *T) configuration(ctx context.Context) (string, error) {
	text, err := t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "get", "configmap/middleway", "-o", `jsonpath={.data.node\.yaml}`)
	return strings.TrimRight(text, "\n") + "\n", err
}

// configure gives the daemons that start from now on a configuration.
func (t *T) configure(ctx context.Context, text string) error {
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"node.yaml": text}})
	if err == nil {
		_, err = t.Cluster.Kubectl(ctx, "-n", daemonNamespace, "patch", "configmap/middleway", "--type=merge", "-p", string(patch))
	}
	return err
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
