package tool

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"
)

// Visit is one request to a Server, as both ends saw it.
type Visit struct {
	Client   netip.AddrPort // the client's own address
	Seen     netip.AddrPort // the client's address as the server saw it
	Hostname string         // the server's
	Took     time.Duration  // from dialling to the end of the answer
}

// Get asks a server whom it sees.
func Get(ctx context.Context, dial Dial, server netip.AddrPort) (Visit, error) {
	var v Visit
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		v.Client = addrPort(i.Conn.LocalAddr().String())
	}})
	start := time.Now()
	resp, err := get(ctx, dial, "http://"+server.String()+"/")
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	var who WhoAmI
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxWhoAmI)).Decode(&who); err != nil {
		return v, fmt.Errorf("read the answer of %v: %w", server, err)
	}
	v.Took = time.Since(start)
	v.Seen, v.Hostname = who.Client, who.Hostname
	if !v.Seen.IsValid() {
		return v, fmt.Errorf("the answer of %v does not say whom it saw", server)
	}
	return v, nil
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
