package remote

import (
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ErrNoDaemon is the sentinel of a node that has no daemon which can be asked.
var ErrNoDaemon = errors.New("no daemon can be asked")

// NoDaemon says why a node's daemon cannot be asked. It is ErrNoDaemon.
type NoDaemon struct{ Node, Why string }

func (e *NoDaemon) Error() string { return fmt.Sprintf("node %s: %s", e.Node, e.Why) }

// Is reports whether target is ErrNoDaemon.
func (e *NoDaemon) Is(target error) bool { return target == ErrNoDaemon }

// ExitError says that a command ended with another exit code than 0.
type ExitError struct {
	Code int
	// Stderr is what the command wrote there last, where nobody else got it.
	Stderr string
}

func (e *ExitError) Error() string {
	if e.Stderr != "" {
		return e.Stderr
	}
	return fmt.Sprintf("the command ended with exit code %d", e.Code)
}

// inWords says what to do about an answer that is none. right is the RBAC that the question needs, for example `verb list on pods in
// namespace middleway`.
func (c *Cluster) inWords(err error, right string) error {
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; this needs the RBAC %s, which docs/kubectl-plugin.md has as a ClusterRole", err, right)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server %s does not take the credentials of %s: are they of another cluster, or have they expired?", c.rest.Host, c.config.where())
	case errors.As(err, &request) && request.Timeout():
		return fmt.Errorf("the API server %s does not answer within %v; is the cluster up and reached from here, and is this its kubeconfig (--kubeconfig, --context)?", c.rest.Host, c.config.Timeout)
	case errors.As(err, &request):
		return fmt.Errorf("the API server %s cannot be asked: %w; is the cluster up, and is this its kubeconfig (--kubeconfig, --context)?", c.rest.Host, request.Err)
	}
	return err
}
