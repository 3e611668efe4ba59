package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// api speaks with the API server from the cluster's outside, as its administrator.
type api struct {
	server string
	client *http.Client
}

func newAPI(c Config) (*api, error) {
	pair, err := tls.LoadX509KeyPair(c.PKI("admin.crt"), c.PKI("admin.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.PKI("ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = sandbox.InNetns(c.Outside(), func() error {
				d := net.Dialer{Timeout: 5 * time.Second}
				conn, err = d.DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
		ForceAttemptHTTP2: true,
	}
	return &api{server: c.Server(), client: &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

// get reads an object, or with v nil merely whether the server says yes.
func (a *api) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", path, resp.Status, body)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(body, v)
}

// A nodeObject is what is read of a Node object.
type nodeObject struct {
	Spec struct {
		PodCIDRs []string `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

func (n nodeObject) ready() (bool, string) {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True", c.Message
		}
	}
	return false, "kubelet has not said anything yet"
}

// A wait is for something that a component brings about.
type wait struct {
	what   string // "node NAME is registered"
	limit  time.Duration
	log    string // file that tells why it is not so
	done   func(context.Context) error
	giveUp func() error // an error where it is no use to wait any longer; nil: never
}

// until asks done again and again until it returns no error.
func (w wait) until(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	var last error
	for {
		err := w.done(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if w.giveUp != nil {
			if err := w.giveUp(); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s: not within %v: %w; %s:\n%s", w.what, w.limit, last, w.log, node.Tail(w.log, 10))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
