package main

import (
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

Exit codes: 0 it was interrupted, 2 it could not listen.`

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
			h := tool.NewHandler(dir)
			var servers []io.Closer
			var err error
			for _, addr := range listen {
				var s io.Closer
				var words string
				if s, words, err = serveAt(addr, h); err != nil {
					err = wrong("tool serve: --listen %s: %w", addr, err)
					break
				}
				servers = append(servers, s)
				fmt.Fprintln(cmd.OutOrStdout(), words)
			}
			if err == nil {
				<-cmd.Context().Done()
			}
			for _, s := range servers {
				err = errors.Join(err, s.Close())
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&listen, "listen", []string{":8080"}, "what to serve where, like :8080, tcp://:7 or udp://10.244.1.2:7; may be given several times")
	cmd.Flags().StringVar(&dir, "dir", "", "directory whose files HTTP serves too")
	return cmd
}

// serveAt listens as --listen says, and tells where.
func serveAt(listen string, h *tool.Handler) (s io.Closer, words string, err error) {
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
		if scheme == "tcp" {
			return tool.EchoStreams(l), fmt.Sprintf("echoing tcp on %v", l.Addr()), nil
		}
		return tool.ServeHTTP(l, h), fmt.Sprintf("serving on %v", l.Addr()), nil
	case "udp":
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, "", err
		}
		return tool.EchoDatagrams(c), fmt.Sprintf("echoing udp on %v", c.LocalAddr()), nil
	}
	return nil, "", errors.New("want http, tcp or udp, as in udp://:7")
}
