package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Init is the first process of a node: it never returns but with an error that the node cannot live with.
func Init(specFile string) error {
	s, err := Read(specFile)
	if err != nil {
		return err
	}
	sup := newSupervisor(s)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			sup.reap()
		}
	}()
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := makeFilesystem(s); err != nil {
		return fmt.Errorf("make the file system of %s: %w", s.Name, err)
	}
	if err := os.Setenv("PATH", s.Path); err != nil {
		return err
	}
	for _, c := range s.Components {
		go sup.begin(c)
	}
	go sup.bringImages()
	return sup.serve(Socket(s.Dir))
}

// begin starts a component when what it needs is there.
func (s *supervisor) begin(c Component) {
	if err := s.await(c.After); err != nil {
		s.fail(fmt.Errorf("%s waits: %w", c.Name, err))
	} else if err := s.add(c); err != nil {
		s.fail(err)
	}
}

// awaitLimit is how long a component has to begin to serve; the longest is the API server on a busy machine.
const awaitLimit = 3 * time.Minute

// await waits until somebody serves at an address as Component.After has it.
func (s *supervisor) await(address string) error {
	network, where, _ := strings.Cut(address, ":")
	if address != "" && !waitFor(awaitLimit, func() bool { return answers(network, where) }) {
		return fmt.Errorf("nobody serves at %s within %v", address, awaitLimit)
	}
	return nil
}

func answers(network, address string) bool {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// bringImages brings archives into the container runtime's store, one after the other: that uses the disk and one processor.
func (s *supervisor) bringImages() {
	if err := s.await("unix:" + s.spec.Runtime); err != nil {
		s.fail(fmt.Errorf("images: %w", err))
		return
	}
	ctr, err := exec.LookPath("ctr")
	if err != nil {
		s.fail(err)
		return
	}
	for _, image := range s.spec.Images {
		if err := s.run([]string{ctr, "--address", s.spec.Runtime, "--namespace", "k8s.io", "images", "import", "--local", image}, s.spec.Log("images")); err != nil {
			s.fail(err)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = true
}

// serve takes orders until the node ends.
func (s *supervisor) serve(socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	order := func(f func(*http.Request) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := f(r); err != nil {
				log.Print(err)
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.state()) })
	mux.HandleFunc("PUT /component", order(func(r *http.Request) error {
		var c Component
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			return err
		}
		return s.add(c)
	}))
	mux.HandleFunc("POST /stop/{name}", order(func(r *http.Request) error { return s.stop(r.PathValue("name")) }))
	mux.HandleFunc("POST /start/{name}", order(func(r *http.Request) error { return s.resume(r.PathValue("name")) }))
	mux.HandleFunc("POST /kill/{name}/{signal}", order(func(r *http.Request) error {
		n, err := strconv.Atoi(r.PathValue("signal"))
		if err != nil {
			return err
		}
		return s.kill(r.PathValue("name"), unix.Signal(n))
	}))
	return http.Serve(l, mux)
}
