package reference

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// chartValues returns the leaves of a values.yaml. A list, an empty group, and a group whose entries have no comments are leaves too. A value
// without a comment, in a group without one, is an error.
func chartValues(text []byte) ([]row, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	var rows []row
	err := walk(doc.Content[0], "", "", &rows)
	return rows, err
}

func walk(group *yaml.Node, prefix, inherited string, rows *[]row) error {
	for i := 0; i+1 < len(group.Content); i += 2 {
		key, value := group.Content[i], group.Content[i+1]
		name, comment := prefix+key.Value, uncomment(key.HeadComment)
		if i == 0 && prefix == "" { // what the whole file begins with is not about its first value
			if parts := strings.Split(key.HeadComment, "\n\n"); len(parts) > 1 {
				comment = uncomment(parts[len(parts)-1])
			}
		}
		if value.Kind == yaml.MappingNode && documented(value) {
			if err := walk(value, name+".", comment, rows); err != nil {
				return err
			}
			continue
		}
		if comment == "" {
			comment = known[name]
		}
		if comment == "" {
			return fmt.Errorf("values.yaml: line %d: %s has no comment", key.Line, name)
		}
		if inherited != "" && i == 0 {
			comment = inherited + " " + comment
		}
		*rows = append(*rows, row{name, "`" + written(value) + "`", comment})
	}
	return nil
}

// known are values that are in all charts and need no words in the file: they go into the pod as they are.
var known = map[string]string{
	"affinity":       "The pods' affinity.",
	"podAnnotations": "More annotations of the pods.",
	"podLabels":      "More labels of the pods.",
}

// documented reports whether an entry of a group has a comment of its own.
func documented(group *yaml.Node) bool {
	for i := 0; i < len(group.Content); i += 2 {
		if group.Content[i].HeadComment != "" || group.Content[i+1].Kind == yaml.MappingNode && documented(group.Content[i+1]) {
			return true
		}
	}
	return false
}

func uncomment(comment string) string {
	var words []string
	for line := range strings.Lines(comment) {
		words = append(words, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "#"))...)
	}
	return strings.Join(words, " ")
}

// written is a value in one line.
func written(value *yaml.Node) string {
	switch value.Kind {
	case yaml.ScalarNode:
		if value.Value == "" {
			return `""`
		}
		return value.Value
	case yaml.SequenceNode:
		var items []string
		for _, item := range value.Content {
			items = append(items, written(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	var items []string
	for i := 0; i+1 < len(value.Content); i += 2 {
		items = append(items, value.Content[i].Value+": "+written(value.Content[i+1]))
	}
	return "{" + strings.Join(items, ", ") + "}"
}
