package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/node"
)

// Each daemon is asked for what is wanted of it.
func TestCaptureOfEach(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]string{}
	var sources []source
	for i := range 8 {
		name := fmt.Sprint("node-", i)
		client := node.Over(name, func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				r, err := http.ReadRequest(bufio.NewReader(there))
				if err != nil {
					return
				}
				var req capture.Request
				_ = json.NewDecoder(r.Body).Decode(&req)
				mu.Lock()
				asked[name] = strings.Join(req.Interfaces, " ")
				mu.Unlock()
				fmt.Fprint(there, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}()
			return here, nil
		})
		sources = append(sources, source{client, []string{"pod-of-" + name}})
	}
	if _, err := begin(t.Context(), sources, capture.Request{}); err == nil {
		t.Error("no daemon has begun, and that is no error")
	}
	for i := range sources {
		if name := fmt.Sprint("node-", i); asked[name] != "pod-of-"+name {
			t.Errorf("%s was asked for %q", name, asked[name])
		}
	}
}
