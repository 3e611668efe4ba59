package components

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// wanted are the images that e2e.test asks for: the name with registry and tag, by the constant that its code uses.
type wanted map[string]string

// readWanted reads them from the Go file in which Kubernetes lists them, test/utils/image/manifest.go: lines like
// configs[Agnhost] = Config{list.PromoterE2eRegistry, "agnhost", "2.66.1"}, where list is a RegistryList whose literal is there as well.
func readWanted(manifest []byte) (wanted, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "manifest.go", manifest, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes' list of images: %w", err)
	}
	registries, images := map[string]string{}, map[string]*ast.CompositeLit{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok {
				if value, ok := literal(n.Value); ok {
					registries[key.Name] = value
				}
			}
		case *ast.AssignStmt:
			if id, config, ok := configOf(n); ok {
				images[id] = config
			}
		}
		return true
	})
	names := wanted{}
	for id, config := range images {
		registry, ok := config.Elts[0].(*ast.SelectorExpr)
		if !ok {
			continue
		}
		name, ok1 := literal(config.Elts[1])
		tag, ok2 := literal(config.Elts[2])
		if host := registries[registry.Sel.Name]; ok1 && ok2 && host != "" {
			names[id] = host + "/" + name + ":" + tag
		}
	}
	return names, nil
}

// configOf takes configs[ID] = Config{a, b, c} apart.
func configOf(n *ast.AssignStmt) (id string, config *ast.CompositeLit, ok bool) {
	index, ok := n.Lhs[0].(*ast.IndexExpr)
	if !ok {
		return "", nil, false
	}
	key, ok := index.Index.(*ast.Ident)
	if !ok {
		return "", nil, false
	}
	config, ok = n.Rhs[0].(*ast.CompositeLit)
	return key.Name, config, ok && len(config.Elts) == 3
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// names returns the names for some constants.
func (w wanted) names(ids ...string) ([]string, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		if names[i] = w[id]; names[i] == "" {
			return nil, fmt.Errorf("e2e.test asks for no image %s any more: take it out of the catalogue", id)
		}
	}
	return names, nil
}
