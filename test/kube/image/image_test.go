package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// describe writes a tar file as lines like "d 755 etc/" and "l bin/sh -> dash".
func describe(t *testing.T, r io.Reader) (lines []string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(t, err)
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s has uid %d, gid %d, time %v, want root's and 1970", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		text, err := io.ReadAll(tr)
		must(t, err)
		switch h.Typeflag {
		case tar.TypeDir:
			lines = append(lines, fmt.Sprintf("d %o %s", h.Mode, h.Name))
		case tar.TypeSymlink:
			lines = append(lines, fmt.Sprintf("l %s -> %s", h.Name, h.Linkname))
		default:
			lines = append(lines, fmt.Sprintf("f %o %s %q", h.Mode, h.Name, text))
		}
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/plain", []byte("plain"), 0o600))
	must(t, os.WriteFile(dir+"/program", []byte("program"), 0o700))
	must(t, os.Symlink("program", dir+"/link"))

	var tree Tree
	tree.Link("/bin/sh", "busybox")
	tree.Link("/bin/sh", "dash")
	tree.Text("/etc/hosts", "localhost")
	tree.Dir("/tmp", os.ModeSticky|0o777)
	tree.Dir("/etc", 0o700)
	must(t, tree.File("/usr/share/plain", dir+"/plain"))
	must(t, tree.File("/program", dir+"/link"))
	if err := tree.File("/dir", dir); err == nil {
		t.Error("a folder is packed as a file")
	}
	if err := tree.File("/none", dir+"/none"); err == nil {
		t.Error("what is not there is packed")
	}

	var b bytes.Buffer
	must(t, tree.writeTar(&b))
	want := []string{"d 755 bin/", "l bin/sh -> dash", "d 700 etc/", `f 644 etc/hosts "localhost"`, `f 755 program "program"`, "d 1777 tmp/",
		"d 755 usr/", "d 755 usr/share/", `f 644 usr/share/plain "plain"`}
	if got := describe(t, &b); !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func text(t *testing.T, name, text string) v1.Layer {
	t.Helper()
	var tree Tree
	tree.Text(name, text)
	l, err := tree.Layer()
	must(t, err)
	return l
}

// The archive is what another reader of OCI image layouts takes it for.
func TestWrite(t *testing.T) {
	shared := text(t, "/shared", "shared")
	images := []Image{
		{Names: []string{"localhost/a:1", "localhost/a:2"}, Layers: []v1.Layer{shared, text(t, "/a", "a")}, Entrypoint: []string{"/a"}, Command: []string{"pause"}},
		{Names: []string{"localhost/b:1"}, Layers: []v1.Layer{shared}},
	}
	var b, again bytes.Buffer
	must(t, Write(&b, images...))
	must(t, Write(&again, images...))
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("the same images give other bytes")
	}
	dir := t.TempDir()
	blobs := unpack(t, &b, dir)
	if want := 2 + 2 + 2; blobs != want { // layers, configurations, manifests
		t.Errorf("%d blobs, want %d", blobs, want)
	}

	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	must(t, validate.Index(index, validate.Fast)) // without what is in layers: it takes all for compressed
	manifest, err := index.IndexManifest()
	must(t, err)
	var names []string
	for _, d := range manifest.Manifests {
		names = append(names, d.Annotations["io.containerd.image.name"])
	}
	if want := []string{"localhost/a:1", "localhost/a:2", "localhost/b:1"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	if got := config.Config; !slices.Equal(got.Entrypoint, []string{"/a"}) || !slices.Equal(got.Cmd, []string{"pause"}) || len(config.RootFS.DiffIDs) != 2 {
		t.Errorf("configuration %+v", config)
	}
}

// unpack writes the files of a tar file below dir, and returns the number of blobs.
func unpack(t *testing.T, r io.Reader, dir string) (blobs int) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return blobs
		}
		must(t, err)
		text, err := io.ReadAll(tr)
		must(t, err)
		path := filepath.Join(dir, h.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, text, 0o644))
		if digest, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			blobs++
			if got := fmt.Sprintf("%x", sha256.Sum256(text)); got != digest {
				t.Errorf("the blob %s is %s", digest, got)
			}
		}
	}
}

func TestWriteFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, []byte("file"), 0o644))
	var tree Tree
	must(t, tree.File("/file", name))
	l, err := tree.Layer()
	must(t, err)
	must(t, os.Remove(name))
	if err := Write(io.Discard, Image{Names: []string{"localhost/a:1"}, Layers: []v1.Layer{l}}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "localhost/a:1") {
		t.Errorf("error %v, want one about the file, with the image's name", err)
	}
}

// The files of a program are those that the dynamic linker names.
func TestProgram(t *testing.T) {
	sh, err := exec.LookPath("sh")
	must(t, err)
	ldd, err := exec.Command("ldd", sh).Output()
	if err != nil {
		t.Skip("ldd does not tell what sh needs, so there is nothing to compare with: ", err)
	}
	var tree Tree
	must(t, tree.Program(sh))
	libraries := regexp.MustCompile(`/\S+`).FindAllString(string(ldd), -1)
	if len(libraries) == 0 {
		t.Fatalf("ldd names no libraries: %s", ldd)
	}
	for _, library := range libraries {
		file, err := filepath.EvalSymlinks(library)
		must(t, err)
		found := false
		for name, e := range tree.entries {
			found = found || e.from == file && filepath.Base(name) == filepath.Base(library)
		}
		if !found {
			t.Errorf("%s is not there", library)
		}
	}
	file, err := filepath.EvalSymlinks(sh)
	must(t, err)
	if e := tree.entries["/bin/"+filepath.Base(file)]; e.from != file {
		t.Errorf("/bin/%s is %+v", filepath.Base(file), e)
	}
	if e := tree.entries["/bin/sh"]; filepath.Base(file) != "sh" && e.link != filepath.Base(file) {
		t.Errorf("/bin/sh is %+v", e)
	}
}

func TestProgramThatIsAScript(t *testing.T) {
	name := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(name, []byte("#!/bin/sh\n"), 0o755))
	var tree Tree
	must(t, tree.Program(name))
	var b bytes.Buffer
	must(t, tree.writeTar(&b))
	if got, want := describe(t, &b), []string{"d 755 bin/", `f 755 bin/script "#!/bin/sh\n"`}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
