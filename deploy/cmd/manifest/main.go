// Command manifest renders the chart: without values into deploy/middleway.yaml and deploy/uninstall.yaml, and writes docs/configuration.md
// (`make manifest`); with values to standard output, where Helm is not at hand.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/middleway-net/middleway/deploy/manifest"
	"github.com/middleway-net/middleway/deploy/reference"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "manifest:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("manifest", flag.ContinueOnError)
	dir := flags.String("deploy", ".", "the repository's `folder` deploy")
	values, given := map[string]any{}, false
	flags.Func("f", "`file` with values (YAML), as helm template -f has it; may be given several times", func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		more, err := loader.LoadValues(f)
		values, given = loader.MergeMaps(values, more), true
		return err
	})
	flags.Func("set", "`value`, as helm template --set has it; may be given several times", func(s string) error {
		given = true
		return strvals.ParseInto(s, values)
	})
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Renders the chart into middleway.yaml, uninstall.yaml and ../docs/configuration.md; with values to standard output.\n\n"+
			"  go run ./cmd/manifest\n"+
			"  go run ./cmd/manifest -set kubeProxyReplacement=true -set kubernetes.server=https://192.168.254.11:6443 -set 'services.cidrs={10.96.0.0/12}'\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	chart := filepath.Join(*dir, "chart")
	if given {
		if _, ok := values["plain"]; !ok {
			values["plain"] = true
		}
		text, err := manifest.Render(chart, values)
		if err != nil {
			return err
		}
		_, err = io.WriteString(stdout, text)
		return err
	}
	files, err := manifest.Files(chart)
	if err != nil {
		return err
	}
	if files["../docs/configuration.md"], err = reference.Page(filepath.Join(*dir, "..")); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(*dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
