package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/middleway-net/middleway/cni/ipam"
)

// A tombstone is a file that says of an attachment that it was deleted while no daemon answered. It is called by a hash,
// since an interface's name may hold nearly anything, and holds the ipam.Key.

// maxTombstone bounds a tombstone, in bytes.
const maxTombstone = 4096

// tombstoneDir returns where tombstones lie: beside the socket, which is what plugin and daemon both know.
func tombstoneDir(socket string) string { return filepath.Join(filepath.Dir(socket), "tombstones") }

func tombstoneName(k ipam.Key) string {
	sum := sha256.Sum256([]byte(k.String()))
	return hex.EncodeToString(sum[:])
}

// bury leaves a tombstone.
func bury(socket string, k ipam.Key) error {
	dir := tombstoneDir(socket)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("leave tombstone: %w", err)
	}
	b, err := encode(k)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return fmt.Errorf("leave tombstone: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, tombstoneName(k)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("leave tombstone: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// buried returns what tombstones say, and an error for each that says nothing, which is removed.
func buried(socket string) (keys []ipam.Key, err error) {
	dir := tombstoneDir(socket)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list tombstones: %w", err)
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > time.Minute {
				_ = os.Remove(filepath.Join(dir, e.Name())) // its writer was killed
			}
			continue
		}
		k, bad := readTombstone(filepath.Join(dir, e.Name()))
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("read tombstone: %w; it is removed", bad), os.RemoveAll(filepath.Join(dir, e.Name())))
			continue
		}
		keys = append(keys, k)
	}
	return keys, err
}

func readTombstone(path string) (k ipam.Key, err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return k, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxTombstone {
		return k, fmt.Errorf("%s is no file of at most %d bytes", path, maxTombstone)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	return parseTombstone(b, filepath.Base(path))
}

// parseTombstone reads what bury wrote under a name.
func parseTombstone(b []byte, name string) (k ipam.Key, err error) {
	if len(b) < headerLen {
		return k, fmt.Errorf("tombstone %s is cut short", name)
	}
	n, err := bodyLen(b[:headerLen])
	if err != nil {
		return k, err
	}
	if n != len(b)-headerLen {
		return k, fmt.Errorf("tombstone %s is cut short", name)
	}
	if err := decode(b[headerLen:], &k); err != nil {
		return k, err
	}
	if err := checkKey(k); err != nil {
		return k, err
	}
	if tombstoneName(k) != name {
		return k, fmt.Errorf("tombstone %s is that of another attachment", name)
	}
	return k, nil
}

// isBuried reports whether there is a tombstone.
func isBuried(socket string, k ipam.Key) bool {
	_, err := os.Lstat(filepath.Join(tombstoneDir(socket), tombstoneName(k)))
	return err == nil
}

// exhume removes a tombstone, after what it says was done.
func exhume(socket string, k ipam.Key) error {
	return os.Remove(filepath.Join(tombstoneDir(socket), tombstoneName(k)))
}
