package playground

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
)

// askHealth asks a server's gRPC health service (grpc.health.v1) how a service is: one request over HTTP/2 without TLS. It is all of
// gRPC that a probe needs (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, …/doc/health-checking.md).
func askHealth(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr, service string) error {
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...) // not compressed
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close() // the transport would keep one whose request has timed out
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = resp.Header.Get("Grpc-Status") // an answer without a message
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the HTTP status is %d: is this a gRPC server?", resp.StatusCode)
	case status != "0":
		return fmt.Errorf("the gRPC status is %q, %s", status, resp.Trailer.Get("Grpc-Message")+resp.Header.Get("Grpc-Message"))
	}
	health, err := parseHealth(body)
	if err == nil && health != serving {
		err = fmt.Errorf("the health of service %q is %s", service, healthNames[min(health, uint64(len(healthNames)-1))])
	}
	return err
}

// What a HealthCheckResponse may say.
var healthNames = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "something unknown"}

const serving = 1

var errHealth = errors.New("the answer is no HealthCheckResponse")

// parseHealth reads the first field of a HealthCheckResponse in a frame of gRPC.
func parseHealth(frame []byte) (uint64, error) {
	if len(frame) < 5 || frame[0] != 0 || int64(binary.BigEndian.Uint32(frame[1:])) != int64(len(frame)-5) {
		return 0, errHealth
	}
	health := uint64(0) // the default of a field that is not there
	for b := frame[5:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, errHealth
		}
		b = b[n:]
		if number == 1 && kind == protowire.VarintType {
			health, n = protowire.ConsumeVarint(b)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return 0, errHealth
		}
		b = b[n:]
	}
	return health, nil
}
