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

	mu      sync.Mutex        // guards the following
	failing map[string]string // why, by what was asked
	told    map[string]bool   // reasons that were logged since the server answered all
	since   time.Time
}

func newHealth(log *slog.Logger, server string) health {
	return health{log: log, server: server, failing: map[string]string{}, told: map[string]bool{}}
}

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
	why, refused := err.Error(), apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
	if len(h.failing) == 0 {
		h.since = time.Now()
	}
	h.failing[what] = why
	reason := "unreachable"
	if refused {
		reason = what
	}
	if h.told[reason] {
		return
	}
	h.told[reason] = true
	if refused {
		h.log.Error("the API server refuses what this node needs; deploy/middleway.yaml has the rights", "what", what, "server", h.server, "err", err)
		return
	}
	h.log.Warn("the API server does not answer; what is known of the cluster stays in force", "server", h.server, "err", err)
}

func (h *health) answeredLocked(what string) {
	if len(h.failing) == 0 {
		return
	}
	delete(h.failing, what)
	if len(h.failing) == 0 {
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
