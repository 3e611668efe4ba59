// Package cluster is what the commands for a cluster's owner share: asking its API server, in JSON of Kubernetes' types, and running
// middleway in pods. The commands themselves are packages below it:
//
//	cluster/check    does the network work, from and to every node?          ┐
//	cluster/perf     how fast is it between nodes?                           ├─ cluster/stage: a namespace of their own, with pods
//	cluster/report   what does a stranger have to know who is asked for help?┘  of the image that the cluster runs
//	cluster/probe    what runs in those pods
//
// They are no part of a packet's way: they look at it from the pods' side, and need no more than a kubeconfig.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// API is a cluster through its API server. Several goroutines may use it.
type API struct {
	// REST is a client of any group. Required.
	REST rest.Interface
	// Run runs a command in a container, with what it reads and where it writes, and returns when it has ended. Required by those who
	// run something.
	Run func(ctx context.Context, c Container, argv []string, in io.Reader, out, errors io.Writer) error
	// Server is the API server's address, for messages.
	Server string
	// Namespace is where the daemons of the cluster are.
	Namespace string
}

// Container is where a command runs.
type Container struct{ Namespace, Pod, Name string }

const jsonType = "application/json"

// Get asks for a path of the API, for example /api/v1/nodes, and decodes the object.
func (a *API) Get(ctx context.Context, path string, query url.Values, into any) error {
	r := a.REST.Get().AbsPath(path).SetHeader("Accept", jsonType)
	for key, values := range query {
		for _, v := range values {
			r = r.Param(key, v)
		}
	}
	text, err := raw(r.Do(ctx))
	if err != nil {
		return inWords("read", path, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Create makes an object below a path, and decodes what became of it unless into is nil.
func (a *API) Create(ctx context.Context, path string, object, into any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	text, err := raw(a.REST.Post().AbsPath(path).SetHeader("Accept", jsonType).SetHeader("Content-Type", jsonType).Body(body).Do(ctx))
	if err != nil {
		return inWords("create", path, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// Delete removes an object. One that is not there is no error.
func (a *API) Delete(ctx context.Context, path string) error {
	_, err := raw(a.REST.Delete().AbsPath(path).SetHeader("Accept", jsonType).Do(ctx))
	if err != nil && !apierrors.IsNotFound(err) {
		return inWords("delete", path, err)
	}
	return nil
}

// raw returns an answer as it came, or what the API server says against it, which Result.Raw does not read.
func raw(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}

// Text asks for a path whose answer is text, a log for example, and returns at most limit bytes of it, of its end.
func (a *API) Text(ctx context.Context, path string, query url.Values, limit int) ([]byte, error) {
	r := a.REST.Get().AbsPath(path)
	for key := range query {
		r = r.Param(key, query.Get(key))
	}
	stream, err := r.Stream(ctx)
	if err != nil {
		return nil, inWords("read", path, err)
	}
	defer stream.Close()
	var kept bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := stream.Read(buf)
		kept.Write(buf[:n])
		if over := kept.Len() - limit; over > limit {
			kept.Next(over)
		}
		if err != nil {
			kept.Next(max(0, kept.Len()-limit))
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return kept.Bytes(), err
		}
	}
}

// Output runs a command in a container, without input, and returns what it prints. More than limit bytes are an error, and so is the
// command's, with what it says.
func (a *API) Output(ctx context.Context, c Container, argv []string, limit int) ([]byte, error) {
	out, errs := bounded{limit: limit}, bounded{limit: maxWords}
	err := a.Run(ctx, c, argv, strings.NewReader(""), &out, &errs)
	if words := strings.TrimSpace(errs.text.String()); err != nil && words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return out.text.Bytes(), err
}

// maxWords is how much a command may say beside what it prints, in bytes.
const maxWords = 64 << 10

// bounded takes no more than limit bytes.
type bounded struct {
	text  bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.text.Len()+len(p) > b.limit {
		return 0, fmt.Errorf("it prints more than %d bytes", b.limit)
	}
	return b.text.Write(p)
}

// inWords says what was asked for, and where rights are missing which.
func inWords(verb, path string, err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return fmt.Errorf("%s %s: %w", verb, what(path), err)
	}
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot") { // else an admission plugin refuses
		return fmt.Errorf("%w: %w; the manual (docs/check.md) lists the rights that it takes", ErrForbidden, err)
	}
	return fmt.Errorf("%s %s: %w", verb, what(path), err)
}

// ErrForbidden is in the errors of what the user of the kubeconfig may not do.
var ErrForbidden = errors.New("the user of this kubeconfig may not do it")

// what is the end of a path: the kind, and the name if there is one.
func what(path string) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/"), "/v1/")
	if rest == "" {
		return path
	}
	return rest
}
