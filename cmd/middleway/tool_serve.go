package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/tool"
)

const serveHelp = `Serves until it is interrupted. What it serves where is said by --listen, which may be given several times: [http://]ADDRESS:PORT,
tcp://ADDRESS:PORT or udp://ADDRESS:PORT; without an address it is all of the machine's. TCP and UDP send back what they get. HTTP
answers

  /, /whoami             the request as it arrived, whom it came from, and this host's name, as JSON
  /hostname, /clientip   one of these as text
  /echo                  the body back, or ?msg=
  /healthz               200, or what PUT /healthz?status=503 has set: something for probes to find
  /blob?size=N&rate=N    N random bytes, N bytes a second (0: as fast as it goes)

and with --dir at all other paths, / among them, the files of a directory.

Exit codes: 0 it was interrupted, 1 it could not go on, 2 it could not listen.`

func toolServeCommand() *cobra.Command {
	var listen []string
	var dir string
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve HTTP that tells whom it sees, and echo by TCP and UDP",
		Long:  serveHelp,
		Example: `  middleway tool serve
  middleway tool serve --listen :80 --listen tcp://:7 --listen udp://:7
  middleway tool serve --listen [fd00:10:244:1::2]:8080 --dir /srv`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return wrong("%w", err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if info, err := os.Stat(dir); dir != "" && (err != nil || !info.IsDir()) {
				return wrong("tool serve: --dir %s: want a directory", dir)
			}
			return serve(cmd, listen, tool.NewHandler(dir))
		},
	}
	cmd.Flags().StringArrayVar(&listen, "listen", []string{":8080"}, "what to serve where, like :8080, tcp://:7 or udp://10.244.1.2:7; may be given several times")
	cmd.Flags().StringVar(&dir, "dir", "", "directory whose files HTTP serves too")
	return cmd
}

// server is one of those of package tool.
type server interface {
	io.Closer
	Done() <-chan struct{}
}

// serve serves until it is interrupted, or a server fails.
func serve(cmd *cobra.Command, listen []string, h *tool.Handler) error {
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	var servers []server
	var err error
	for _, addr := range listen {
		waits := func(err error) {
			fmt.Fprintf(cmd.ErrOrStderr(), "middleway: tool serve: --listen %s: %v; trying again\n", addr, err)
		}
		s, words, errListen := serveAt(addr, h, waits)
		if errListen != nil {
			err = wrong("tool serve: --listen %s: %w", addr, errListen)
			break
		}
		servers = append(servers, s)
		fmt.Fprintln(cmd.OutOrStdout(), words)
		go func() { // ends with the server
			<-s.Done()
			stop()
		}()
	}
	if err == nil {
		<-ctx.Done()
	}
	for i, s := range servers {
		if failed := s.Close(); failed != nil {
			err = errors.Join(err, fmt.Errorf("tool serve: --listen %s: %w", listen[i], failed))
		}
	}
	return err
}

// serveAt listens as --listen says, and tells where. waits is told of failures that pass by themselves.
func serveAt(listen string, h *tool.Handler, waits func(error)) (s server, words string, err error) {
	scheme, addr, found := strings.Cut(listen, "://")
	if !found {
		scheme, addr = "http", listen
	}
	switch scheme {
	case "http", "tcp":
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, "", err
		}
		l = tool.PatientListener(l, waits)
		if scheme == "tcp" {
			return tool.EchoStreams(l), fmt.Sprintf("echoing tcp on %v", l.Addr()), nil
		}
		return tool.ServeHTTP(l, h), fmt.Sprintf("serving on %v", l.Addr()), nil
	case "udp":
		c, err := tool.ListenDatagrams(addr)
		if err != nil {
			return nil, "", err
		}
		return tool.EchoDatagrams(tool.PatientPacketConn(c, waits)), fmt.Sprintf("echoing udp on %v", c.LocalAddr()), nil
	}
	return nil, "", errors.New("want http, tcp or udp, as in udp://:7")
}
