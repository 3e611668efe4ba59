package tool

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
)

// WhoAmI is what a Handler tells about a request and itself.
type WhoAmI struct {
	Hostname string         `json:"hostname"` // of the server; in a pod the pod's name
	Client   netip.AddrPort `json:"client"`   // whom the server sees
	Server   netip.AddrPort `json:"server"`   // the address that the client has reached
	Method   string         `json:"method"`
	Host     string         `json:"host"` // that the client asked for
	Path     string         `json:"path"`
	Headers  http.Header    `json:"headers"`
}

const (
	// maxWhoAmI is the largest WhoAmI that is read, in bytes: Go's servers take headers of 1 MiB.
	maxWhoAmI = 2 << 20
	// maxEcho is the largest body that /echo sends back, in bytes.
	maxEcho = 1 << 20
)

// Handler answers with what one wants to know of a server behind a network, at the paths that Kubernetes' agnhost has too:
//
//	/, /whoami           WhoAmI as JSON
//	/hostname            the server's host name
//	/clientip            the client's address and port
//	/echo                the body back, or ?msg=
//	/healthz             200, or what PUT /healthz?status=503 has set
//	/blob?size=N&rate=N  N random bytes, at a rate (0: as fast as it goes), and their SHA-256 as a trailer
//
// If it has a directory, all other paths, / among them, are its files.
type Handler struct {
	mux    http.ServeMux
	health atomic.Int32 // status of /healthz
}

// NewHandler returns a Handler that serves the files of a directory too, or none if dir is empty.
func NewHandler(dir string) *Handler {
	h := &Handler{}
	h.health.Store(http.StatusOK)
	if dir != "" {
		h.mux.Handle("/", http.FileServer(http.Dir(dir)))
	} else {
		h.mux.HandleFunc("/{$}", serveWhoAmI)
	}
	h.mux.HandleFunc("/whoami", serveWhoAmI)
	h.mux.HandleFunc("GET /hostname", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hostname()) })
	h.mux.HandleFunc("GET /clientip", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, addrPort(r.RemoteAddr)) })
	h.mux.HandleFunc("/echo", serveEcho)
	h.mux.HandleFunc("GET /healthz", h.serveHealth)
	h.mux.HandleFunc("PUT /healthz", h.setHealth)
	h.mux.HandleFunc("GET "+blobPath, serveBlob)
	return h
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func serveWhoAmI(w http.ResponseWriter, r *http.Request) {
	who := WhoAmI{
		Hostname: hostname(), Client: addrPort(r.RemoteAddr),
		Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Headers: r.Header,
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		who.Server = addrPort(a.String())
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(who) // fails only if the client has gone
}

// addrPort reads an address as package net writes it; not valid for what is no IP socket.
func addrPort(s string) netip.AddrPort {
	p, _ := netip.ParseAddrPort(s)
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// hostname is empty where the kernel does not tell.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

func serveEcho(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // whatever a browser would make of it
	if msg := r.URL.Query().Get("msg"); msg != "" {
		fmt.Fprint(w, msg)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		http.Error(w, fmt.Sprintf("a body of at most %d bytes comes back: %v", maxEcho, err), http.StatusRequestEntityTooLarge)
		return
	}
	_, _ = w.Write(body) // fails only if the client has gone
}

func (h *Handler) serveHealth(w http.ResponseWriter, _ *http.Request) {
	status := int(h.health.Load())
	w.WriteHeader(status)
	fmt.Fprintln(w, status, http.StatusText(status))
}

func (h *Handler) setHealth(w http.ResponseWriter, r *http.Request) {
	status, err := strconv.Atoi(r.URL.Query().Get("status"))
	if err != nil || status < 200 || status > 599 {
		http.Error(w, "want a status from 200 to 599, as in /healthz?status=503", http.StatusBadRequest)
		return
	}
	h.health.Store(int32(status))
	fmt.Fprintln(w, "from now on", status, http.StatusText(status))
}
