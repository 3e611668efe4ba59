// Package reference makes docs/configuration.md: the chart's values as values.yaml has them, and the fields of the daemon's configuration as
// the Go types have them. What the page says of each is the comment there, so that there is one place to keep.
package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const head = `# Configuration

Every value of the [chart](../deploy/chart) and every field of the daemon's configuration file. [install.md](install.md) says which ones a cluster needs,
[node.md](node.md) which ones have flags. This page is made by ` + "`make manifest`" + ` from deploy/chart/values.yaml and the types in package node.

## Values of the chart

What ` + "`helm install --set`" + ` sets, and ` + "`go run ./cmd/manifest -set`" + ` in deploy where Helm is not at hand. A value that is misspelt or of another form is refused.

`

const nodeHead = `
## node.yaml

The file of ` + "`middleway node --config`" + `. In a cluster it is the entry node.yaml of the ConfigMap middleway, which the chart writes from its values; the value
` + "`config`" + ` takes any field of this table. A field that does not exist, is there twice, or has a value of another form is refused with its line.

`

// Page returns docs/configuration.md of the repository at root.
func Page(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/chart/values.yaml"))
	if err != nil {
		return "", err
	}
	values, err := chartValues(text)
	if err != nil {
		return "", err
	}
	fields, err := nodeFields(root)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(head)
	table(&page, [3]string{"value", "default", "what"}, values)
	page.WriteString(nodeHead)
	table(&page, [3]string{"field", "form", "what"}, fields)
	return page.String(), nil
}

// row is a line of a table: a name, its default or its form, and what it is.
type row struct{ name, about, what string }

func table(page *strings.Builder, heads [3]string, rows []row) {
	fmt.Fprintf(page, "| %s | %s | %s |\n|---|---|---|\n", heads[0], heads[1], heads[2])
	for _, r := range rows {
		fmt.Fprintf(page, "| `%s` | %s | %s |\n", r.name, cell(r.about), cell(r.what))
	}
}

// cell makes one line of a text, in which a bar would begin the next column.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
