package reference

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// packages whose types the configuration is made of, by the name that they have in package node.
var packages = map[string]string{"": "node", "underlay": "node/underlay"}

// types are the structs of the configuration, as node.Config or underlay.Config.
type types map[string]*ast.StructType

// nodeFields returns the fields of node.Config, those of its parts behind the part.
func nodeFields(root string) ([]row, error) {
	all := types{}
	for name, dir := range packages {
		if err := all.read(os.DirFS(root), dir, name); err != nil {
			return nil, err
		}
	}
	var rows []row
	err := all.fields("", "Config", "", &rows)
	return rows, err
}

func (t types) read(root fs.FS, dir, name string) error {
	files, err := fs.Glob(root, path.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := fs.ReadFile(root, file)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					t[name+"."+spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return nil
}

func (t types) fields(pkg, name, prefix string, rows *[]row) error {
	s := t[pkg+"."+name]
	if s == nil {
		return fmt.Errorf("there is no type %s in package node", strings.TrimPrefix(pkg+"."+name, "."))
	}
	names := yamlNames(t[".Config"]) // of which those of the parts speak, too
	own := yamlNames(s)
	maps.Copy(names, own)
	for _, f := range s.Fields.List {
		if len(f.Names) != 1 || own[f.Names[0].Name] == "" {
			continue // embedded, or no field of the file
		}
		field := prefix + own[f.Names[0].Name]
		form, part := formOf(f.Type)
		if form == "" && t[pkg+"."+part] != nil {
			part, form = pkg+"."+part, "fields"
		} else if form == "" {
			return fmt.Errorf("%s: nothing is known of the type %s", field, part)
		}
		if f.Doc == nil {
			return fmt.Errorf("%s has no comment", field)
		}
		*rows = append(*rows, row{field, form, inWords(f.Doc.Text(), f.Names[0].Name, names)})
		if part == "" {
			continue
		}
		if strings.HasPrefix(form, "list") {
			field += "[]"
		}
		pkg, name, _ := strings.Cut(part, ".")
		if err := t.fields(pkg, name, field+".", rows); err != nil {
			return err
		}
	}
	return nil
}

// yamlNames returns what the fields are called in the file.
func yamlNames(s *ast.StructType) map[string]string {
	names := map[string]string{}
	for _, f := range s.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		if name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); name != "-" {
			names[f.Names[0].Name] = name
		}
	}
	return names
}

// forms are the types that are no structs of fields, as a person writes them.
var forms = map[string]string{
	"string": "text", "bool": "true or false", "int": "number", "uint16": "number", "vxlan.VNI": "number", "netip.Addr": "address", "netip.Prefix": "range",
	"Duration": "duration", "Switch": "auto or off", "Upstream": "address, with or without a port", "FrontRange": "range or primary",
}

// formOf returns how a type is written, and for a struct, or a list of such, its name as package.Name.
func formOf(e ast.Expr) (form, part string) {
	switch e := e.(type) {
	case *ast.ArrayType:
		form, part = formOf(e.Elt)
		if part != "" {
			return "list of fields", "." + part
		}
		return "list: " + form, ""
	case *ast.SelectorExpr:
		name := e.X.(*ast.Ident).Name + "." + e.Sel.Name
		if form, ok := forms[name]; ok {
			return form, ""
		}
		return "fields", name
	case *ast.Ident:
		if form, ok := forms[e.Name]; ok {
			return form, ""
		}
		return "", e.Name
	}
	return "", fmt.Sprintf("%T", e)
}

var word = regexp.MustCompile(`[A-Za-z0-9]+`)

// ordinary are names of fields that are also words of the language, or of the field.
var ordinary = regexp.MustCompile(`^(CNI|CIDR|DNS|HTTP|IPv6|Kubernetes|MAC|MTU|Name|NodePorts|Pods|Services|TSO|TTL|USO|VNI|VXLAN)$`)

// inWords is a comment for who reads the file: it calls fields as the file does, whatever begins a sentence or is ordinary apart.
func inWords(comment, self string, names map[string]string) string {
	comment = strings.Join(strings.Fields(comment), " ")
	var b strings.Builder
	end := 0
	for _, at := range word.FindAllStringIndex(comment, -1) {
		w, before := comment[at[0]:at[1]], comment[:at[0]]
		b.WriteString(comment[end:at[0]])
		begins := before == "" || strings.HasSuffix(before, ". ")
		if names[w] != "" && (before == "" && w == self || !begins && (!ordinary.MatchString(w) || strings.HasSuffix(before, "Default "))) {
			w = "`" + names[w] + "`"
		}
		b.WriteString(w)
		end = at[1]
	}
	b.WriteString(comment[end:])
	return b.String()
}
