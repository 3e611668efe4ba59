package playground

import (
	"context"
	"encoding/json"
	"errors"
	"net"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/middleway-net/middleway/lab/control"
)

// maxObjects bounds the objects of one reply, in bytes, so that a frame holds it.
const maxObjects = 1 << 20

// list sends the objects that a query chooses.
func (s *server) list(conn net.Conn, q control.Query) {
	objects, err := s.cluster.control.List(q)
	if err != nil {
		s.fail(conn, err)
		return
	}
	var r reply
	size := 0
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			s.fail(conn, err)
			return
		}
		if size += len(b); size > maxObjects && len(r.Objects) > 0 {
			s.answer(conn, r)
			r, size = reply{}, len(b)
		}
		r.Objects = append(r.Objects, b)
	}
	r.End = true
	s.answer(conn, r)
}

// watch sends changes until the client goes, or the cluster ends.
func (s *server) watch(conn net.Conn, q control.Query) {
	ctx, cancel := context.WithCancel(s.cluster.ctx)
	defer cancel()
	go func() { // it ends with the connection, at the latest when serve closes it
		_, _ = conn.Read(make([]byte, 1)) // a client says nothing more: it has gone
		cancel()
	}()
	err := s.cluster.control.Watch(ctx, q, func(e control.Event) error {
		b, err := json.Marshal(e.Object)
		if err != nil {
			return err
		}
		return s.send(conn, reply{Objects: []json.RawMessage{b}, Events: []control.EventType{e.Type}})
	})
	if err != nil && ctx.Err() == nil {
		s.fail(conn, err)
		return
	}
	s.answer(conn, reply{End: true})
}

func (s *server) apply(conn net.Conn, a control.ApplyRequest) {
	result, err := s.cluster.control.Apply(a)
	if err != nil {
		s.fail(conn, err)
		return
	}
	s.answer(conn, reply{Applied: &result, End: true})
}

func (s *server) delete(conn net.Conn, d control.DeleteRequest) {
	ctx, cancel := context.WithCancel(s.cluster.ctx)
	defer cancel()
	go func() { // as in watch
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	err := s.cluster.control.Delete(ctx, d, func(ref control.Ref) { _ = s.send(conn, reply{Refs: []control.Ref{ref}}) })
	if err != nil && s.cluster.ctx.Err() != nil {
		err = errors.New("the cluster was taken down meanwhile")
	}
	s.end(conn, err)
}

func (s *server) scale(conn net.Conn, req control.ScaleRequest) {
	err := s.cluster.control.Scale(req, func(ref control.Ref) { _ = s.send(conn, reply{Refs: []control.Ref{ref}}) })
	s.end(conn, err)
}

// end sends the last reply of a request that has ended.
func (s *server) end(conn net.Conn, err error) {
	if err != nil {
		s.fail(conn, err)
		return
	}
	s.answer(conn, reply{End: true})
}

// fail sends an error as the last reply.
func (s *server) fail(conn net.Conn, err error) {
	r := reply{Error: err.Error()}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		failure := status.Status()
		r.Failure = &failure
	}
	s.answer(conn, r)
}
