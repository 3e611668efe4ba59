package manifest

import (
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
)

// standIn says how a well-known image runs without a command.
type standIn struct {
	// entrypoint is of an image whose program gets the container's arguments. The others have arguments in the command's place.
	entrypoint bool
	// own are commands that are the image's own program, whatever follows them.
	own []string
	// first are the first arguments for which there is a stand-in; nil for all.
	first []string
}

// standIns are the images that have one, by the last part of their names. Package standin has the programs.
var standIns = map[string]standIn{
	"nginx":   {own: []string{"nginx", "nginx-debug"}},
	"httpd":   {own: []string{"httpd", "httpd-foreground", "apachectl"}},
	"busybox": {},
	"agnhost": {entrypoint: true, first: []string{"pause", "netexec", "serve-hostname", "connect"}},
	"curl":    {entrypoint: true},
	"pause":   {entrypoint: true},
}

// standInsWords names them for a person.
const standInsWords = "nginx, httpd, busybox, agnhost, curl and pause"

// parents are where such images lie, in whatever registry: mirrors keep these names.
var parents = []string{"library", "e2e-test-images", "curlimages", "curl", "."}

// standInOf returns the stand-in for an image's name, for example docker.io/library/nginx:1.27@sha256:….
func standInOf(image string) (name string, s standIn, ok bool) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", standIn{}, false
	}
	repository := reference.Path(named)
	name = path.Base(repository)
	s, ok = standIns[name]
	return name, s, ok && slices.Contains(parents, path.Base(path.Dir(repository)))
}

// command returns what the container runs, before variables are put in: its command and arguments, or the stand-in for its image.
func command(c *corev1.Container) []string {
	if len(c.Command) > 0 {
		return slices.Concat(c.Command, c.Args)
	}
	name, s, ok := standInOf(c.Image)
	switch {
	case !ok:
		return nil
	case s.entrypoint:
		return append([]string{"middleway", "tool", "stand-in", name}, c.Args...)
	case len(c.Args) == 0 || slices.Contains(s.own, c.Args[0]):
		return []string{"middleway", "tool", "stand-in", name}
	}
	return c.Args
}

// checkCommand finds out whether there is something to run.
func (p *Pod) checkCommand(at string, c *corev1.Container) error {
	argv := command(c)
	if len(argv) == 0 {
		if _, err := reference.ParseNormalizedNamed(c.Image); c.Image != "" && err != nil {
			return p.Errorf(at+".image", "%q is no name of an image, which is one like nginx:1.27 or registry.k8s.io/pause", c.Image)
		}
		return p.Errorf(at+".command", "container %s has no command, and images are not run here; say what to run with the host's files, for example command: [sleep, infinity] (%s have a stand-in)", c.Name, standInsWords)
	}
	if argv[0] == "" {
		if len(c.Command) > 0 {
			return p.Errorf(at+".command[0]", "the command is empty")
		}
		return p.Errorf(at+".args[0]", "the command is empty")
	}
	name, s, _ := standInOf(c.Image)
	if len(c.Command) == 0 && s.first != nil && len(c.Args) > 0 && !slices.Contains(s.first, c.Args[0]) && !strings.Contains(c.Args[0], "$(") {
		return p.Errorf(at+".args[0]", "%s %s has no stand-in here; it has %s; say what to run with the host's files by a command", name, c.Args[0], strings.Join(s.first, ", "))
	}
	return nil
}
