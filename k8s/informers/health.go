package informers

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Unreachable says that the API server does not answer, or refuses what is asked.
type Unreachable struct {
	Since time.Time
	Why   string
}

// health knows whether the API server answers, and says when that changes.
type health struct {
	log    *slog.Logger
	server string
	warn   func(reason, message string) // has an Event written

	mu      sync.Mutex           // guards the following
	failing map[string]string    // why, by what was asked
	refused map[string]time.Time // since when, by what was asked; of those that fail
	told    map[string]bool      // reasons that were logged since the server answered all
	since   time.Time
}

func newHealth(log *slog.Logger, server string) health {
	return health{log: log, server: server, failing: map[string]string{}, refused: map[string]time.Time{}, told: map[string]bool{}}
}

// RefusalLasts is how long the API server refuses something before that counts as a refusal: one that has just started refuses all until it
// has read the cluster's roles.
const RefusalLasts = 5 * time.Second

// note notes how a request ended.
func (h *health) note(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.answeredLocked(what)
		return
	}
	var request *url.Error // whose text is mostly parameters
	if errors.As(err, &request) {
		err = request.Err
	}
	why := err.Error()
	sentence, refused := Refusal(err)
	if len(h.failing) == 0 {
		h.since = time.Now()
	}
	h.failing[what] = why
	reason := "unreachable"
	if refused {
		if !h.lastsLocked(what) {
			return
		}
		reason = what
		h.warn(ReasonRights, sentence)
	} else {
		delete(h.refused, what)
	}
	if h.told[reason] {
		return
	}
	h.told[reason] = true
	switch {
	case refused:
		h.log.Error(sentence, "server", h.server)
	case what == ownObject:
		h.log.Warn("the API server does not answer, and this node waits until it does; see that kubernetes.server is its own address, and that the way there is open", "server", h.server, "err", err)
	default:
		h.log.Warn("the API server does not answer; what is known of the cluster stays in force", "server", h.server, "err", err)
	}
}

// lastsLocked notes that something is refused, and reports whether it has been for long enough to say so.
func (h *health) lastsLocked(what string) bool {
	first, before := h.refused[what]
	if !before {
		h.refused[what] = time.Now()
		return false
	}
	return time.Since(first) >= RefusalLasts
}

// ReasonRights is the reason of Events about what the API server refuses to this node.
const ReasonRights = "RightsMissing"

// Refusal returns, of an error that says that the API server refuses what this node needs, a sentence with what to do.
func Refusal(err error) (sentence string, refused bool) {
	switch {
	case apierrors.IsUnauthorized(err):
		return "the API server does not know who this node is (" + err.Error() + "); renew the kubeconfig file or, in a pod, the service account's token", true
	case apierrors.IsForbidden(err):
		return "the API server refuses what this node needs: " + err.Error() + "; allow it in the ClusterRole, as deploy/middleway.yaml does", true
	}
	return "", false
}

func (h *health) answeredLocked(what string) {
	if len(h.failing) == 0 {
		return
	}
	delete(h.failing, what)
	delete(h.refused, what)
	if len(h.failing) == 0 && len(h.told) > 0 {
		clear(h.told)
		h.log.Info("the API server answers again", "server", h.server, "after", time.Since(h.since).Round(time.Millisecond))
	}
}

func (h *health) unreachable() *Unreachable {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, why := range h.failing {
		return &Unreachable{Since: h.since, Why: why}
	}
	return nil
}

// quiet makes everything a matter of debugging.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
