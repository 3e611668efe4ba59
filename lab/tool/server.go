package tool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// What clients and server agree on besides HTTP.
const (
	blobPath   = "/blob"
	hashHeader = "X-Content-Sha256" // a trailer: it is known at the end
	// maxChunk is the most that is written at once, in bytes.
	maxChunk = 256 << 10
)

// Server answers HTTP as a Handler does.
type Server struct {
	http http.Server
	done chan struct{}
	err  error // why Serve returned, once done is closed
}

// Serve answers on a listener, which is owned, until Close.
func Serve(l net.Listener) *Server { return ServeHTTP(l, NewHandler("")) }

// ServeHTTP is Serve with a handler.
func ServeHTTP(l net.Listener, h http.Handler) *Server {
	s := &Server{http: http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = s.http.Serve(l)
	}()
	return s
}

// Done is closed when the server takes no more connections: after Close, or because its listener failed, as Close then says.
func (s *Server) Done() <-chan struct{} { return s.done }

// Close ends the server and its connections.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if !errors.Is(s.err, http.ErrServerClosed) {
		return s.err
	}
	return err
}

func serveBlob(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.FormValue("size"), 10, 64)
	rate, errRate := strconv.ParseInt(r.FormValue("rate"), 10, 64)
	if err != nil || errRate != nil || size < 0 || rate < 0 {
		http.Error(w, "want size and rate, in bytes and bytes a second", http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", hashHeader)
	hash := sha256.New()
	if err := sendBlob(io.MultiWriter(w, hash), size, rate); err != nil {
		return // the client has gone, and misses the trailer
	}
	w.Header().Set(hashHeader, hex.EncodeToString(hash.Sum(nil)))
}

// sendBlob writes random bytes. After a stall it catches up with the rate as fast as it can.
func sendBlob(w io.Writer, size, rate int64) error {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	random := rand.NewChaCha8(seed)
	chunk := int64(maxChunk)
	if rate > 0 {
		chunk = min(chunk, max(1, rate/256)) // a few milliseconds' worth
	}
	buf := make([]byte, chunk)
	start := time.Now()
	for sent := int64(0); sent < size; {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))))
		}
		b := buf[:min(chunk, size-sent)]
		_, _ = random.Read(b) // never fails
		n, err := w.Write(b)
		if err != nil {
			return err
		}
		sent += int64(n)
	}
	return nil
}
