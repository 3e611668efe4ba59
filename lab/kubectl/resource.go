package kubectl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/middleway-net/middleway/lab/control"
)

// resource is an object that a person has named, or all of a kind.
type resource struct {
	kind *control.Kind
	name string // "" for all
}

// parseResources reads KIND[,KIND] [NAME]... or KIND/NAME...
func parseResources(args []string) (all []resource, err error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("say what: %s, or all", kindList())
	}
	for _, arg := range args {
		if strings.Contains(arg, "/") {
			return slashed(args)
		}
	}
	names := args[1:]
	if len(names) == 0 {
		names = []string{""}
	}
	for word := range strings.SplitSeq(args[0], ",") {
		kinds, err := kindsNamed(word)
		if err != nil {
			return nil, err
		}
		for _, k := range kinds {
			for _, name := range names {
				all = append(all, resource{k, name})
			}
		}
	}
	return all, nil
}

// slashed reads KIND/NAME...
func slashed(args []string) (all []resource, err error) {
	for _, arg := range args {
		word, name, found := strings.Cut(arg, "/")
		switch {
		case !found:
			return nil, fmt.Errorf("%q: where one argument is KIND/NAME all of them are, as in pod/a service/b", arg)
		case word == "" || name == "" || strings.Contains(name, "/"):
			return nil, fmt.Errorf("%q: want KIND/NAME, for example service/web; -n says the namespace", arg)
		case strings.EqualFold(word, "all"):
			return nil, errors.New("all has no names; say the kind, as in service/web")
		}
		kinds, err := kindsNamed(word)
		if err != nil {
			return nil, err
		}
		all = append(all, resource{kinds[0], name})
	}
	return all, nil
}

func kindsOf(all []resource) (kinds []*control.Kind) {
	for _, r := range all {
		kinds = append(kinds, r.kind)
	}
	return kinds
}

// single reports whether one object was asked for.
func single(all []resource) bool { return len(all) == 1 && all[0].name != "" }
