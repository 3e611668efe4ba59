package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/middleway-net/middleway/cni/ipam"
)

// A tombstone is a file that says of an attachment that it was deleted while no daemon answered. It says so by its name, a
// hash of the ipam.Key, since an interface's name may hold nearly anything: whatever became of what is in it, or release
// wrote it, it is understood. What is in it is the key for people to read.

// newPrefix begins the names of tombstones that are being written.
const newPrefix = ".new-"

// tombstoneDir returns where tombstones lie: beside the socket, which is what plugin and daemon both know.
func tombstoneDir(socket string) string { return filepath.Join(filepath.Dir(socket), "tombstones") }

func tombstoneName(k ipam.Key) string {
	sum := sha256.Sum256([]byte(k.String()))
	return hex.EncodeToString(sum[:])
}

// isTombstone reports whether an entry of the directory is a tombstone, or is to become one: anything else is not ours.
func isTombstone(e fs.DirEntry) (whole, unfinished bool) {
	if !e.Type().IsRegular() {
		return false, false
	}
	sum, err := hex.DecodeString(e.Name())
	return err == nil && len(sum) == sha256.Size && e.Name() == strings.ToLower(e.Name()), strings.HasPrefix(e.Name(), newPrefix)
}

// bury leaves a tombstone.
func bury(socket string, k ipam.Key) error {
	err := buryIn(tombstoneDir(socket), k)
	if errors.Is(err, fs.ErrNotExist) { // the directory was removed in between: Cleanup and a start that fails do that
		err = buryIn(tombstoneDir(socket), k)
	}
	if err != nil {
		return fmt.Errorf("leave tombstone: %w", err)
	}
	return nil
}

func buryIn(dir string, k ipam.Key) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(dir, newPrefix)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%q\n", k.String())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, tombstoneName(k)))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// buried returns the names of tombstones.
func buried(socket string) (names []string, err error) {
	dir := tombstoneDir(socket)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries { // those that were read before an error, too
		switch whole, unfinished := isTombstone(e); {
		case whole:
			names = append(names, e.Name())
		case unfinished:
			if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > time.Minute {
				_ = os.Remove(filepath.Join(dir, e.Name())) // its writer was killed
			}
		}
	}
	return names, err
}

// isBuried reports whether there is a tombstone. What cannot be told is an error.
func isBuried(socket, name string) (bool, error) {
	st, err := os.Lstat(filepath.Join(tombstoneDir(socket), name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a tombstone: %w", err)
	}
	return st.Mode().IsRegular(), nil
}

// exhume removes a tombstone, after what it says was done.
func exhume(socket, name string) error {
	return os.Remove(filepath.Join(tombstoneDir(socket), name))
}
