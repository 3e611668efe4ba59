// Package standin is what runs in a pod of the playground in place of well-known images whose container has no command: small
// servers and clients that listen, answer or end as the image's own program would. Package manifest says which image has which.
package standin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
)

// Config is what a stand-in finds.
type Config struct {
	Name     string   // of the stand-in, one of Names
	Args     []string // of the container
	Hostname string   // of the pod
	Out      io.Writer
	// Listen and ListenPacket make sockets. Default: those of package net.
	Listen       func(network, addr string) (net.Listener, error)
	ListenPacket func(network, addr string) (net.PacketConn, error)
}

// programs are the stand-ins. They run until their context ends, or their work is done.
var programs = map[string]func(context.Context, *Config) error{
	"nginx":   serveNginx,
	"httpd":   serveHTTPD,
	"busybox": func(context.Context, *Config) error { return nil }, // a shell without input ends at once
	"agnhost": runAgnhost,
	"curl":    runCurl,
	"pause":   pause,
}

// Names returns the names of the stand-ins.
func Names() []string { return slices.Sorted(maps.Keys(programs)) }

// exit is the error of a program that ends with a code.
type exit struct {
	code int
	err  error // nil if it says nothing
}

func (e *exit) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }
func (e *exit) Unwrap() error { return e.err }

// Run runs a stand-in and returns its exit code; if that is not 0 with an error that says why, but for a silent program.
func Run(ctx context.Context, c Config) (int, error) {
	program := programs[c.Name]
	if program == nil {
		return 1, fmt.Errorf("there is no stand-in %q; want one of %s", c.Name, strings.Join(Names(), ", "))
	}
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	if c.ListenPacket == nil {
		c.ListenPacket = net.ListenPacket
	}
	err := program(ctx, &c)
	var e *exit
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &e):
		return e.code, e.err
	}
	return 1, fmt.Errorf("%s: %w", c.Name, err)
}

func pause(ctx context.Context, _ *Config) error {
	<-ctx.Done()
	return nil
}

// Hostname returns the pod's name as its containers have it.
func Hostname() string {
	if name := os.Getenv("HOSTNAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
