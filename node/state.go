package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/middleway-net/middleway/stack/flow"
)

// How long a daemon waits for another one in its run directory to end, and how often it looks. In a cluster that may take as long as it wants:
// the next pod of an update waits there, and takes over within a few of these looks.
const (
	statePatience = time.Second
	stateInterval = 10 * time.Millisecond
)

// openState makes the run directory and opens the flow table there; its lock keeps a second daemon out.
func (n *Node) openState(ctx context.Context) error {
	_, missing := os.Stat(n.config.RunDir)
	if err := os.MkdirAll(n.config.RunDir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w; choose another one by runDir", err)
	}
	n.madeRunDir = errors.Is(missing, fs.ErrNotExist)
	if err := CheckRunDir(n.config.RunDir); err != nil {
		return err
	}
	n.madeFlows = !fileExists(n.flowFile())
	flows, err := n.openFlows(ctx)
	switch {
	case errors.Is(err, errOutdone) || err != nil && ctx.Err() != nil:
		return err
	case errors.Is(err, flow.ErrInUse):
		return fmt.Errorf("another middleway node runs on %s; end it, or choose another runDir", n.config.RunDir)
	case err != nil:
		return fmt.Errorf("%w; make its directory writable, or choose another runDir", err)
	}
	n.flows = flows
	return nil
}

var errOutdone = errors.New("another daemon of this node works, where this one could not; this one ends")

// openFlows opens the flow table, once no other daemon has it.
func (n *Node) openFlows(ctx context.Context) (*flow.Table, error) {
	var next *successor
	defer func() { n.heritage = next.end() }()
	if n.turn == gaveWay {
		n.stepBack(ctx)
	}
	var asked time.Time
	var asking sync.WaitGroup
	defer asking.Wait() // its answer says whether another daemon stands by
	for begin, told := time.Now(), false; ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		flows, err := flow.Open(n.flowFile(), n.config.FlowEntries)
		if !errors.Is(err, flow.ErrInUse) || !n.config.Kubernetes.hasAPI() && time.Since(begin) > statePatience {
			return flows, err
		}
		if n.turn == couldNot {
			return nil, errOutdone
		}
		if !told && n.config.Kubernetes.hasAPI() {
			n.log.Info("another daemon of this node is at work in " + n.config.RunDir + "; this one takes over when it ends")
			told = true
			next = n.succeed()
			_ = n.http.close() // the address is where probes are to reach the daemon at work
		}
		if n.turn == asks && n.config.Kubernetes.hasAPI() && time.Since(asked) > askEvery {
			asked = time.Now()
			asking.Go(func() { n.askForTurn(ctx) })
		}
		if !wait(ctx, stateInterval) {
			return nil, context.Cause(ctx)
		}
	}
}

// podsName is the name, in the run directory, of the file that tells the next daemon which pods the configuration had.
const podsName = "pods.json"

// recordPods writes down the configuration's pods: the next daemon leaves out those of them that have gone.
func (n *Node) recordPods() error {
	pods := map[string]string{}
	for _, p := range n.config.Pods {
		pods[p.Name] = p.Netns
	}
	b, err := json.Marshal(pods)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(n.config.RunDir, podsName), b); err != nil {
		return fmt.Errorf("write down pods: %w; make runDir writable, or choose another one", err)
	}
	return nil
}

// replaceFile writes a file, so that its readers see the former text or the new one, after a loss of power too.
func replaceFile(path string, text []byte) (err error) {
	aside := path + ".new"
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		return errors.Join(err, remove(aside))
	}
	return nil
}

// recordedPods returns the network namespaces of the pods that a former daemon of this boot had, by name.
func (n *Node) recordedPods() (map[string]string, error) {
	if !n.flows.Reopened() {
		return nil, nil
	}
	path := filepath.Join(n.config.RunDir, podsName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var pods map[string]string
	if err == nil {
		err = json.Unmarshal(b, &pods)
	}
	if err != nil {
		return nil, fmt.Errorf("read former pods from %s: %w; remove the file", path, err)
	}
	return pods, nil
}

// secretName is the name, in the run directory, of the file with the secret of the peers' tokens. With another one, what peers send is lost
// until they have asked for new tokens.
const secretName = "tokens.secret"

// tokenSecret returns the former daemon's secret, or draws one.
func (n *Node) tokenSecret() (secret [32]byte, err error) {
	path := filepath.Join(n.config.RunDir, secretName)
	b, err := os.ReadFile(path)
	if err == nil && len(b) == len(secret) {
		return [32]byte(b), nil
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		rand.Read(secret[:]) // never fails
		err = replaceFile(path, secret[:])
	}
	if err != nil {
		return secret, fmt.Errorf("keep the secret of the peers' tokens: %w; make runDir writable, or choose another one", err)
	}
	return secret, nil
}

// flowsName is the flow table's name in the run directory.
const flowsName = "flows"

func (n *Node) flowFile() string { return filepath.Join(n.config.RunDir, flowsName) }

// removeState takes away what a failed start made, but never what a former daemon left. The lock on the flow table is held.
func (n *Node) removeState() error {
	var errs []error
	if n.flows != nil && n.madeFlows {
		errs = append(errs, os.Remove(n.flowFile()), remove(filepath.Join(n.config.RunDir, podsName)), remove(filepath.Join(n.config.RunDir, selfName)),
			remove(filepath.Join(n.config.RunDir, keptName)), remove(filepath.Join(n.config.RunDir, secretName)))
	}
	if n.madeLeases {
		errs = append(errs, os.Remove(n.leaseFile()))
	}
	return errors.Join(errs...)
}

// removeRunDir removes the run directory that a failed start made.
func (n *Node) removeRunDir() error {
	if !n.madeRunDir {
		return nil
	}
	return os.Remove(n.config.RunDir)
}

// remove removes a file if it is there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
