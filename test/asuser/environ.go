//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

var (
	// goPlaces say what of root's Go installation to show to the user.
	goPlaces = []string{"GOROOT", "GOMODCACHE", "GOCACHE"}
	// goSettings count for the user as they do for root, also those that root keeps by `go env -w`.
	goSettings = []string{"GOFLAGS", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOTOOLCHAIN"}
	// passedOn are the other variables a new session would get from its machine or its CI system.
	passedOn = []string{
		"CI", "TERM", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	}
)

// ourPrefix marks the variables that our own tests read; all are passed on.
const ourPrefix = "MIDDLEWAY_"

// goVariables asks the go command for goPlaces and goSettings.
func goVariables() (map[string]string, error) {
	args := slices.Concat([]string{"env", "-json"}, goPlaces, goSettings)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	vars := map[string]string{}
	if err := json.Unmarshal(out, &vars); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return vars, nil
}

// userEnviron is the environment of the user's session: made anew, as by login, but for what the lists above name. In the minimal
// root go takes modules and tool chain as they are there.
func userEnviron(vars map[string]string, minimal bool) []string {
	path := os.Getenv("PATH")
	if minimal {
		path = "/bin"
		vars = maps.Clone(vars)
		vars["GOPROXY"], vars["GOTOOLCHAIN"] = "off", "local"
	}
	env := []string{
		"HOME=" + home,
		"XDG_RUNTIME_DIR=" + runtimeDir,
		"TMPDIR=" + home + "/tmp",
		"USER=user",
		"LOGNAME=user",
		"SHELL=/bin/sh",
		"PATH=" + goRoot + "/bin:" + path,
	}
	for _, name := range goSettings {
		if vars[name] != "" {
			env = append(env, name+"="+vars[name])
		}
	}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if slices.Contains(passedOn, name) || strings.HasPrefix(name, ourPrefix) {
			env = append(env, pair)
		}
	}
	return env
}
