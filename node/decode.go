package node

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decode reads the text of a configuration file. Every error says the line and the field, which libraries that go by way of
// JSON do not know.
func decode(text []byte, c *Config) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return syntaxError(err, text)
	}
	switch err := d.Decode(&next); {
	case err == nil:
		return fmt.Errorf("line %d: a second document begins; a configuration is one", next.Line)
	case !errors.Is(err, io.EOF):
		return syntaxError(err, text)
	}
	return decodeValue(doc.Content[0], reflect.ValueOf(c).Elem(), "")
}

// syntax is how the YAML library tells of what is no YAML: without a line if it is the first one, and in a few cases at all.
var syntax = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?:(unknown anchor) '(.*)' referenced)?`)

// syntaxError says what is no YAML, and where.
func syntaxError(err error, text []byte) error {
	s := strings.Join(strings.Fields(err.Error()), " ")
	m := syntax.FindStringSubmatch(s)
	if m == nil {
		return errors.New(s)
	}
	line, problem := m[1], strings.TrimPrefix(strings.TrimPrefix(s, "yaml: "), "line "+m[1]+": ")
	if line == "" {
		at := 0
		if m[2] != "" {
			at = bytes.Index(text, []byte("*"+m[3]))
		} else if odd := oddByte(text); odd >= 0 {
			at = odd
		}
		line = strconv.Itoa(1 + bytes.Count(text[:max(at, 0)], []byte("\n")))
	}
	return fmt.Errorf("line %s: this is no YAML: %s", line, problem)
}

// oddByte returns where the first byte stands that no text has, or -1.
func oddByte(text []byte) int {
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f {
			return at
		}
		at += n
	}
	return -1
}

// wrong says what is wrong with the field at path, "" being the whole file.
func wrong(n *yaml.Node, path, format string, args ...any) error {
	if path != "" {
		path += ": "
	}
	return fmt.Errorf("line %d: %s%s", n.Line, path, fmt.Sprintf(format, args...))
}

// decodeValue sets v. An empty value leaves the default.
func decodeValue(n *yaml.Node, v reflect.Value, path string) error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isEmpty(n) {
		return nil
	}
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode || text.UnmarshalText([]byte(n.Value)) != nil {
			return wrong(n, path, "%s is not %s", describe(n), wanted[v.Type()])
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return decodeFields(n, v, path)
	case reflect.Slice:
		return decodeList(n, v, path)
	}
	return decodeScalar(n, v, path)
}

// wanted says what the types that read themselves take.
var wanted = map[reflect.Type]string{
	reflect.TypeFor[netip.Addr]():   "an address like 192.168.254.11",
	reflect.TypeFor[netip.Prefix](): "a range like 10.244.1.0/24",
	reflect.TypeFor[Duration]():     "a duration like 50us or 1m30s",
	reflect.TypeFor[Switch]():       "auto or off",
	reflect.TypeFor[FrontRange]():   "a range like 192.168.254.0/24, or primary",
	reflect.TypeFor[Upstream]():     "the address of a server like 192.168.254.1 or 192.168.254.1:53",
}

func isEmpty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// decodeFields sets the fields of a struct, which are called as in its JSON.
func decodeFields(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, path, "fields are needed, as in name: value, not %s", describe(n))
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name != "-" {
			fields[name] = i
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at, known := fields[key.Value]
		where := strings.TrimPrefix(path+"."+key.Value, ".")
		switch {
		case key.Kind != yaml.ScalarNode || !known:
			return wrong(key, path, "unknown field %q%s", key.Value, suggest(key.Value, fields))
		case seen[key.Value]:
			return wrong(key, where, "the field is there twice; keep one")
		}
		seen[key.Value] = true
		if err := decodeValue(n.Content[i+1], v.Field(at), where); err != nil {
			return err
		}
	}
	return nil
}

// suggest names the field that was probably meant.
func suggest(key string, fields map[string]int) string {
	for name := range fields { // at most one is so similar
		if strings.EqualFold(name, key) || strings.EqualFold(name, key+"s") || strings.EqualFold(name+"s", key) {
			return "; did you mean " + name + "?"
		}
	}
	return "; `middleway node --help` lists the fields"
}

func decodeList(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.SequenceNode {
		return wrong(n, path, "a list is needed, as in [a, b] or lines with a dash, not %s", describe(n))
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		where := fmt.Sprintf("%s[%d]", path, i)
		if isEmpty(item) {
			return wrong(item, where, "an entry of the list is empty; fill it in, or remove it")
		}
		if err := decodeValue(item, list.Index(i), where); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

// decodeScalar sets a string, to which every word is one, a boolean or a whole number.
func decodeScalar(n *yaml.Node, v reflect.Value, path string) error {
	switch kind := v.Kind(); {
	case kind == reflect.String && n.Kind == yaml.ScalarNode:
		v.SetString(n.Value)
		return nil
	case kind == reflect.String:
		return wrong(n, path, "a string is needed, not %s", describe(n))
	case kind == reflect.Bool && n.Tag == "!!bool":
		v.SetBool(strings.EqualFold(n.Value, "true"))
		return nil
	case kind == reflect.Bool:
		return wrong(n, path, "true or false is needed, not %s", describe(n))
	case n.Tag != "!!int":
		return wrong(n, path, "a whole number is needed, not %s", describe(n))
	}
	i, err := strconv.ParseInt(n.Value, 0, 64)
	switch {
	case err != nil || v.CanInt() && v.OverflowInt(i):
		return wrong(n, path, "%s is too large", n.Value)
	case v.CanInt():
		v.SetInt(i)
	case i < 0 || v.OverflowUint(uint64(i)):
		return wrong(n, path, "%d is not between 0 and %d", i, uint64(1)<<v.Type().Bits()-1)
	default:
		v.SetUint(uint64(i))
	}
	return nil
}

// describe names what stands there.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "fields"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case len(n.Value) > 60:
		return fmt.Sprintf("%.60q…", n.Value)
	case n.Tag == "!!int" || n.Tag == "!!float" || n.Tag == "!!bool":
		return n.Value
	}
	return fmt.Sprintf("%q", n.Value)
}
