package demo

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
)

const (
	// downloadTime is how long a download would take undisturbed: the server sends at this pace, so that the kill falls into
	// its middle whatever its size.
	downloadTime = time.Second
	// downloadWait bounds a download. TCP tries again after 0.2, 0.4, 0.8, … s, so a restart costs little more than that.
	downloadWait = 30 * time.Second
	// startWait bounds the first third of it, also on a machine that has a tenth of the speed.
	startWait = downloadWait / 3
	// readyWait bounds the start of a daemon.
	readyWait = 10 * time.Second
)

// restartFact is a download whose node lost its daemon.
type restartFact struct {
	From     string `json:"from"` // the pod that serves
	To       string `json:"to"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"` // of what was sent and of what arrived
	Took     Millis `json:"downloadMs"`
	Node     string `json:"node"` // whose daemon was killed
	OldPID   int    `json:"oldPid"`
	NewPID   int    `json:"newPid"`
	KilledAt int64  `json:"killedAtBytes"`
	Ready    Millis `json:"readyMs"` // from the kill until the new daemon answers
	Flows    int    `json:"flows"`   // directions of flows that the new daemon found
	Stall    Millis `json:"longestStallMs"`
	StallAt  int64  `json:"longestStallAtBytes"`
}

func (f *restartFact) text() string {
	return fmt.Sprintf("%s → %s  %v in %v, hashes equal, stalled %v\nthe daemon of %s killed at %v: pid %d\nthe next one up %v later: pid %d, flows found: %d",
		f.From, f.To, Bytes(f.Bytes), f.Took, f.Stall,
		f.Node, Bytes(f.KilledAt), f.OldPID,
		f.Ready, f.NewPID, (f.Flows+1)/2)
}

// restart kills each daemon once: the client's node's under a download from another node, then the other's under one within
// that node.
func (r *run) restart(ctx context.Context) {
	one, two, pods := r.cluster.Nodes()[0], r.cluster.Nodes()[1], r.cluster.Pods()
	r.check(ctx, "other node", func(ctx context.Context) (fact, error) {
		return r.downloadThroughKill(ctx, one, pods[0], pods[2])
	})
	r.check(ctx, "same node", func(ctx context.Context) (fact, error) {
		return r.downloadThroughKill(ctx, two, pods[3], pods[2])
	})
}

// downloadThroughKill kills the daemon of a node when a third of a download has arrived, starts it again, and waits for the
// rest.
func (r *run) downloadThroughKill(ctx context.Context, victim *playground.Node, client, server *playground.Pod) (fact, error) {
	ctx, cancel := context.WithTimeout(ctx, downloadWait)
	defer cancel()
	d := startDownload(ctx, client, netip.AddrPortFrom(server.Addrs()[0], playground.DefaultPort), r.config.Download)
	select {
	case <-d.third:
	case <-d.done:
		return nil, d.failure("before the daemon was killed")
	case <-time.After(startWait):
		cancel()
		<-d.done
		return nil, fmt.Errorf("the download from %s came only to %v within %v, before the daemon was killed", server.Name(), Bytes(d.received.Load()), startWait)
	}
	f := &restartFact{From: server.Name(), To: client.Name(), Node: victim.Name(), OldPID: victim.Daemon().PID()}
	if err := restart(victim, f, &d.received); err != nil {
		cancel()
		<-d.done
		return nil, err
	}
	<-d.done
	if d.err != nil {
		return nil, d.failure(fmt.Sprintf("after the daemon of %s was killed at %v and came back within %v", victim.Name(), Bytes(f.KilledAt), f.Ready))
	}
	f.Bytes, f.SHA256, f.Took = d.result.Bytes, d.result.SHA256, Millis(d.result.Took)
	f.Stall, f.StallAt = Millis(d.result.Stall), d.result.StallAt
	if f.KilledAt >= f.Bytes {
		return nil, fmt.Errorf("the download was over when the daemon was killed; choose a larger --download than %v", Bytes(f.Bytes))
	}
	if f.Flows == 0 {
		return nil, fmt.Errorf("the new daemon of %s found no flows of the old one", victim.Name())
	}
	return f, nil
}

// restart kills a node's daemon and waits until the playground has started it again.
func restart(victim *playground.Node, f *restartFact, received *atomic.Int64) error {
	killed := time.Now()
	if err := victim.Daemon().Kill(); err != nil {
		return err
	}
	f.KilledAt = received.Load()
	for {
		if st, err := victim.Node.Status(); err == nil && st.PID != f.OldPID {
			f.Ready, f.NewPID, f.Flows = Millis(time.Since(killed)), st.PID, st.Stack.RestoredFlows
			return nil
		}
		if time.Since(killed) > readyWait {
			s := victim.Status()
			return fmt.Errorf("the daemon of %s did not come back within %v: %s", victim.Name(), readyWait, s.Message)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// download is one that goes on in the background.
type download struct {
	received atomic.Int64
	third    chan struct{} // closed when a third has arrived
	done     chan struct{} // closed when result and err are set
	result   tool.Received
	err      error
}

func startDownload(ctx context.Context, client *playground.Pod, server netip.AddrPort, size int64) *download {
	d := &download{third: make(chan struct{}), done: make(chan struct{})}
	progress := func(received int64) {
		if before := d.received.Swap(received); before < size/3 && received >= size/3 {
			close(d.third)
		}
	}
	rate := int64(float64(size) / downloadTime.Seconds())
	go func() {
		defer close(d.done)
		d.result, d.err = tool.Download(ctx, client.Namespace().Dial, server, tool.DownloadConfig{Size: size, Rate: max(1, rate), Progress: progress})
	}()
	return d
}

// failure says when a download failed.
func (d *download) failure(when string) error {
	switch {
	case d.err == nil:
		return fmt.Errorf("the download ended %s", when)
	case timedOut(d.err):
		return fmt.Errorf("the download stood still at %v %s and was given up after %v", Bytes(d.result.Bytes), when, downloadWait)
	}
	return fmt.Errorf("the download failed %s: %w", when, d.err)
}
