package standin

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// webPort is where the images of web servers listen.
const webPort = 80

func serveNginx(ctx context.Context, c *Config) error {
	return c.serveWelcome(ctx, "nginx", "<title>Welcome to nginx!</title>", "<h1>Welcome to nginx!</h1>")
}

func serveHTTPD(ctx context.Context, c *Config) error {
	return c.serveWelcome(ctx, "Apache", "<title>It works!</title>", "<h1>It works!</h1>")
}

// serveWelcome serves the page that the server shows before anybody has put files there, with the pod's name, and logs requests
// in the combined format as both servers do.
func (c *Config) serveWelcome(ctx context.Context, server, title, heading string) error {
	page := fmt.Sprintf("<!DOCTYPE html>\n<html>\n<head>%s</head>\n<body>\n%s\n<p>This is pod %s, with middleway's stand-in for %s.</p>\n</body>\n</html>\n",
		title, heading, html.EscapeString(c.Hostname), c.Name)
	mux := http.NewServeMux()
	for _, path := range []string{"/{$}", "/index.html"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(page)) // a client that has gone needs none
		})
	}
	return c.serveHTTP(ctx, webPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", server)
		counted := &countingWriter{ResponseWriter: w, code: http.StatusOK}
		mux.ServeHTTP(counted, r)
		c.logRequest(r, counted)
	}))
}

// countingWriter remembers what was answered.
type countingWriter struct {
	http.ResponseWriter
	code  int
	bytes int
}

func (w *countingWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += n
	return n, err
}

// logRequest prints a line in the combined log format (https://httpd.apache.org/docs/2.4/logs.html#combined).
func (c *Config) logRequest(r *http.Request, w *countingWriter) {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	fmt.Fprintf(c.Out, "%s - - [%s] %q %d %d %q %q\n", client, time.Now().Format("02/Jan/2006:15:04:05 -0700"),
		r.Method+" "+r.RequestURI+" "+r.Proto, w.code, w.bytes, or(r.Referer()), or(r.UserAgent()))
}

// serveHTTP serves on a port until ctx ends.
func (c *Config) serveHTTP(ctx context.Context, port int, h http.Handler) error {
	l, err := c.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// serveUDP answers datagrams on a port until ctx ends.
func (c *Config) serveUDP(ctx context.Context, port int, answer func(datagram string, from net.Addr) string) error {
	conn, err := c.ListenPacket("udp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error about an answer
		}
		_, _ = conn.WriteTo([]byte(answer(string(buf[:n]), from)), from) // datagrams may be lost
	}
}

// together runs servers until the first of them fails, or all have ended with ctx.
func together(ctx context.Context, servers ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	for _, serve := range servers {
		wg.Go(func() {
			if err := serve(ctx); err != nil {
				once.Do(func() { failure = err })
				cancel(err)
			}
		})
	}
	wg.Wait()
	return failure
}
