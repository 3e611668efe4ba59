// Command image packs middleway's programs into a container image; `make image` builds them and calls it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/middleway-net/middleway/deploy/image"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	var c image.Config
	flags.StringVar(&c.Name, "name", "middleway", "`repository` of the image, without a tag")
	flags.StringVar(&c.Version, "version", "", "the image's first `tag`; the second is latest")
	flags.StringVar(&c.Programs, "programs", "bin", "`folder` that has the programs of each architecture in a folder linux_ARCHITECTURE")
	architectures := flags.String("arch", "amd64,arm64", "`architectures`, as Go calls them; Docker's own image store gets the first")
	created := flags.Int64("created", 0, "time of everything in the image, in `seconds` since 1970")
	out := flags.String("o", "bin/middleway-image.tar", "`file` to write")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Packs middleway's programs into an image for `ctr images import`, `docker load` and `kind load image-archive`.\n\n"+
			"  go run ./cmd/image -version v1.2.3 -programs ../bin -o ../bin/middleway-image.tar\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	c.Architectures, c.Created = strings.Split(*architectures, ","), time.Unix(*created, 0)
	m, err := image.Build(c)
	if err != nil {
		return err
	}
	if err := write(m, *out); err != nil {
		return err
	}
	for _, one := range m.Images {
		size, err := one.LayerSize()
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s:%s linux/%s %.1f MB\n", c.Name, c.Version, one.Architecture, float64(size)/1e6)
	}
	return nil
}

// write replaces the file whole or not at all.
func write(m image.Image, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once it is renamed, there is none
	if err := errors.Join(m.Write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
