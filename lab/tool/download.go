package tool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// ErrHash is the error of a download whose bytes are not those that were sent.
var ErrHash = errors.New("the hash of what arrived is not that of what was sent")

// DownloadConfig describes a download.
type DownloadConfig struct {
	// Size in bytes. Default 0: nothing but the hash.
	Size int64
	// Rate at which the server sends, in bytes a second. Default: as fast as it goes.
	Rate int64
	// Progress is called after every read with the bytes received so far. It must not wait. Default: nobody is told.
	Progress func(received int64)
}

// Received tells of a download. After an error it tells how far it came.
type Received struct {
	Bytes   int64
	SHA256  string        // of what arrived, in hexadecimal; equal to the sender's unless there is an error
	Took    time.Duration // from dialling to the last byte
	Stall   time.Duration // the longest time in which nothing arrived, between two reads
	StallAt int64         // bytes received before it
}

// Download gets bytes from a Server and compares their hash with the server's.
func Download(ctx context.Context, dial Dial, server netip.AddrPort, c DownloadConfig) (Received, error) {
	start := time.Now()
	resp, err := get(ctx, dial, fmt.Sprintf("http://%v%s?size=%d&rate=%d", server, blobPath, c.Size, c.Rate))
	if err != nil {
		return Received{}, err
	}
	defer resp.Body.Close()
	r, err := receive(resp.Body, c.Progress)
	r.Took = time.Since(start)
	switch sent := resp.Trailer.Get(hashHeader); {
	case err != nil:
		return r, fmt.Errorf("after %d of %d bytes: %w", r.Bytes, c.Size, err)
	case r.Bytes != c.Size:
		return r, fmt.Errorf("%d of %d bytes arrived", r.Bytes, c.Size)
	case r.SHA256 != sent:
		return r, fmt.Errorf("%w: got %s, want %q", ErrHash, r.SHA256, sent)
	}
	return r, nil
}

// receive reads to the end.
func receive(body io.Reader, progress func(int64)) (r Received, err error) {
	hash := sha256.New()
	buf := make([]byte, maxChunk)
	for last := time.Now(); ; {
		n, err := body.Read(buf)
		now := time.Now()
		if gap := now.Sub(last); gap > r.Stall {
			r.Stall, r.StallAt = gap, r.Bytes
		}
		last = now
		r.Bytes += int64(n)
		hash.Write(buf[:n])
		if progress != nil {
			progress(r.Bytes)
		}
		if err != nil {
			r.SHA256 = hex.EncodeToString(hash.Sum(nil))
			if err == io.EOF {
				err = nil
			}
			return r, err
		}
	}
}
