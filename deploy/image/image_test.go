package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var created = time.Unix(1_750_000_000, 0)

// example returns the archive of an image whose programs are a few bytes.
func example(t *testing.T, dir string) []byte {
	t.Helper()
	for _, arch := range []string{"amd64", "arm64"} {
		if err := os.MkdirAll(filepath.Join(dir, "linux_"+arch), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range programs {
			if err := os.WriteFile(filepath.Join(dir, "linux_"+arch, name), []byte(name+" for "+arch), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, err := Build(Config{Name: "middleway", Version: "v1.2.3", Created: created, Architectures: []string{"amd64", "arm64"}, Programs: dir})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := m.Write(&archive); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// untar returns the files of a tar, and a line on each entry in order.
func untar(t *testing.T, archive io.Reader) (files map[string][]byte, lines []string) {
	t.Helper()
	files = map[string][]byte{}
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files, lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[h.Name] = content
		}
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %q %d", h.Name, h.FileInfo().Mode(), h.Uid, h.Gid, h.Uname+h.Gname, h.ModTime.Unix()))
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return v
}

func sha(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }

func TestLayoutForContainerd(t *testing.T) {
	files, lines := untar(t, bytes.NewReader(example(t, t.TempDir())))
	for name, content := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest != sha(content) {
			t.Errorf("%s has the digest %s", name, sha(content))
		}
	}
	for _, line := range lines {
		if !strings.HasSuffix(line, `0:0 "" 0`) {
			t.Errorf("%s: want nobody's and no time", line)
		}
	}
	if got, want := string(files["oci-layout"]), `{"imageLayoutVersion":"1.0.0"}`; got != want {
		t.Errorf("oci-layout %s, want %s", got, want)
	}
	top := decode[v1.IndexManifest](t, files["index.json"])
	var names []string
	for _, d := range top.Manifests {
		names = append(names, d.Annotations[annotationName]+" "+d.Annotations[annotationTag])
	}
	if diff := cmp.Diff([]string{"docker.io/library/middleway:v1.2.3 v1.2.3", "docker.io/library/middleway:latest latest"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	nested := decode[v1.IndexManifest](t, files["blobs/sha256/"+top.Manifests[0].Digest.Hex])
	var platforms []string
	for _, d := range nested.Manifests {
		manifest := decode[v1.Manifest](t, files["blobs/sha256/"+d.Digest.Hex])
		config := decode[v1.ConfigFile](t, files["blobs/sha256/"+manifest.Config.Digest.Hex])
		platforms = append(platforms, d.Platform.String())
		if got := config.OS + "/" + config.Architecture; got != d.Platform.String() {
			t.Errorf("configuration for %s, want %s", got, d.Platform)
		}
		for _, described := range append(manifest.Layers, manifest.Config) {
			if got, ok := files["blobs/sha256/"+described.Digest.Hex]; !ok || int64(len(got)) != described.Size {
				t.Errorf("%s: %d bytes there, want %d", described.Digest, len(got), described.Size)
			}
		}
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
}

// The rules are those of moby, daemon/internal/image/tarexport/load.go.
func TestDockerLoads(t *testing.T) {
	files, _ := untar(t, bytes.NewReader(example(t, t.TempDir())))
	list := decode[[]saved](t, files["manifest.json"])
	if len(list) != 1 {
		t.Fatalf("%d images with the same tags, of which the last would win; want 1", len(list))
	}
	if diff := cmp.Diff([]string{"middleway:v1.2.3", "middleway:latest"}, list[0].RepoTags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	config := decode[v1.ConfigFile](t, files[list[0].Config])
	if config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("an image for %s/%s, want the first architecture", config.OS, config.Architecture)
	}
	if len(config.RootFS.DiffIDs) != len(list[0].Layers) || config.RootFS.Type != "layers" {
		t.Fatalf("rootfs %+v for the layers %v", config.RootFS, list[0].Layers)
	}
	for i, name := range list[0].Layers {
		if got := sha(gunzip(t, files[name])); got != config.RootFS.DiffIDs[i].Hex {
			t.Errorf("layer %d has diff id %s, want %s", i, got, config.RootFS.DiffIDs[i].Hex)
		}
	}
}

func TestWhatIsInIt(t *testing.T) {
	files, _ := untar(t, bytes.NewReader(example(t, t.TempDir())))
	entry := decode[[]saved](t, files["manifest.json"])[0]
	content, lines := untar(t, bytes.NewReader(gunzip(t, files[entry.Layers[0]])))
	want := []string{
		`etc/ 20000000755 0:0 "" 1750000000`,
		`etc/group 644 0:0 "" 1750000000`,
		`etc/passwd 644 0:0 "" 1750000000`,
		`tmp/ 20004000777 0:0 "" 1750000000`,
		`usr/ 20000000755 0:0 "" 1750000000`,
		`usr/local/ 20000000755 0:0 "" 1750000000`,
		`usr/local/bin/ 20000000755 0:0 "" 1750000000`,
		`usr/local/bin/middleway 755 0:0 "" 1750000000`,
		`usr/local/bin/middleway-cni 755 0:0 "" 1750000000`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
	if got := string(content["usr/local/bin/middleway"]); got != "middleway for amd64" {
		t.Errorf("middleway is %q", got)
	}
	config := decode[v1.ConfigFile](t, files[entry.Config])
	if diff := cmp.Diff([]string{"/usr/local/bin/middleway"}, config.Config.Entrypoint); diff != "" {
		t.Errorf("entrypoint (-want +got):\n%s", diff)
	}
	if got := config.Config.Labels["org.opencontainers.image.version"]; got != "v1.2.3" {
		t.Errorf("label of the version %q", got)
	}
}

func TestVersionThatIsNoTag(t *testing.T) {
	if _, err := Build(Config{Name: "middleway", Version: "1.0+dirty"}); err == nil || !strings.Contains(err.Error(), "1.0+dirty") {
		t.Errorf("got %v, want a sentence on the version", err)
	}
}

func TestFullName(t *testing.T) {
	for tag, want := range map[string]string{
		"middleway:v1":                  "docker.io/library/middleway:v1",
		"someone/middleway:v1":          "docker.io/someone/middleway:v1",
		"registry.example/a/mw:v1":      "registry.example/a/mw:v1",
		"localhost/middleway:v1":        "localhost/middleway:v1",
		"registry:5000/middleway:v1":    "registry:5000/middleway:v1",
		"ghcr.io/middleway-net/mw:v1.2": "ghcr.io/middleway-net/mw:v1.2",
	} {
		if got := fullName(tag); got != want {
			t.Errorf("%s is %s, want %s", tag, got, want)
		}
	}
}

// TestReproducible runs `make image` in two copies of the repository in different places.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything twice")
	}
	var sums [2]string
	for i, dir := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "another", "place")} {
		copyRepository(t, dir)
		cmd := exec.Command("make", "-C", dir, "image", "VERSION=v0.0.0-test", "CREATED=1750000000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make image: %v\n%s", err, out)
		}
		archive, err := os.ReadFile(filepath.Join(dir, "bin", "middleway-image.tar"))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha(archive)
	}
	if sums[0] != sums[1] {
		t.Errorf("two archives: %s and %s", sums[0], sums[1])
	}
}

// copyRepository copies what is built: Go files and their modules, what they embed, and the Makefile.
func copyRepository(t *testing.T, dir string) {
	t.Helper()
	list := exec.Command("git", "-C", "../..", "ls-files", "--cached", "--others", "--exclude-standard")
	out, err := list.Output()
	if err != nil {
		t.Skipf("which files belong to the repository only git knows: %v", err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSuffix(name, "\n")
		content, err := os.ReadFile(path.Join("../..", name))
		if os.IsNotExist(err) {
			continue // removed, and that not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
