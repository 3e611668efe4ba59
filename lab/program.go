package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// StartError tells why an isolated process, or one beside it, did not become its program.
type StartError struct {
	Code    int    `json:"code"` // as shells have it: 127 there is no such program, 126 it cannot be executed, 125 all else
	Problem string `json:"problem"`
}

func (e *StartError) Error() string { return e.Problem }

// Program reports whether it is the program that is missing or cannot be executed.
func (e *StartError) Program() bool { return e.Code == exitNotFound || e.Code == exitNoExecutable }

// startError tells an error of a child's first step.
func startError(err error) *StartError {
	if e := (*StartError)(nil); errors.As(err, &e) {
		return e
	}
	code := exitRole
	switch {
	case errors.Is(err, unix.ENOENT):
		code = exitNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
		code = exitNoExecutable
	}
	return &StartError{code, err.Error()}
}

// awaitProgram returns when the child has become its program, or tells why it did not.
func awaitProgram(report *os.File) error {
	b, err := io.ReadAll(report) // what is written there fits into the pipe; executing the program closes it
	if err != nil || len(b) == 0 {
		return err
	}
	e := &StartError{}
	if err := json.Unmarshal(b, e); err != nil {
		return fmt.Errorf("read what the child reports: %w", err)
	}
	return e
}

// lookPath finds a program as execvp(3) does.
func lookPath(name string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
			candidates = append(candidates, filepath.Join(folder, name))
		}
	}
	denied := ""
	for _, path := range candidates {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir() || info.Mode()&0o111 == 0:
			denied = path
		default:
			return path, nil
		}
	}
	if denied != "" {
		return "", &StartError{exitNoExecutable, denied + " is no program that may be executed"}
	}
	return "", &StartError{exitNotFound, fmt.Sprintf("there is no program %s on this machine, whose files stand in for the image", name)}
}
