package tool

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"time"
)

// Visit is one request to a Server, as both ends saw it.
type Visit struct {
	Client netip.AddrPort // the client's own address
	Seen   netip.AddrPort // the client's address as the server saw it
	Took   time.Duration  // from dialling to the end of the answer
}

// Get asks a server whom it sees.
func Get(ctx context.Context, dial Dial, server netip.AddrPort) (Visit, error) {
	var v Visit
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		v.Client = unmapped(i.Conn.LocalAddr())
	}})
	start := time.Now()
	resp, err := get(ctx, dial, "http://"+server.String()+"/")
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return v, fmt.Errorf("read the answer of %v: %w", server, err)
	}
	v.Took = time.Since(start)
	if v.Seen, err = netip.ParseAddrPort(strings.TrimSpace(string(b))); err != nil {
		return v, fmt.Errorf("read the answer of %v: %w", server, err)
	}
	v.Seen = netip.AddrPortFrom(v.Seen.Addr().Unmap(), v.Seen.Port())
	return v, nil
}

func unmapped(a net.Addr) netip.AddrPort {
	p, _ := netip.ParseAddrPort(a.String()) // not valid for what is no IP socket
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// get sends a request over a connection of its own, which ends with the body.
func get(ctx context.Context, dial Dial, url string) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, DisableCompression: true, ReadBufferSize: maxChunk,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "middleway")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return resp, nil
}
