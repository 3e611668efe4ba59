package components

import (
	"slices"
	"testing"
)

const manifest = `package image

var initRegistry = RegistryList{
	GcRegistry:  "registry.example",
	E2eRegistry: "registry.example/e2e",
}

func initImageConfigs(list RegistryList) map[ImageID]Config {
	configs := map[ImageID]Config{}
	configs[Agnhost] = Config{list.E2eRegistry, "agnhost", "2.1"}
	configs[Pause] = Config{list.GcRegistry, "pause", "3.9"}
	configs[Odd] = Config{list.NoRegistry, "odd", "1"}
	configs[Named] = Config{registry: list.GcRegistry}
	other[Pause] = nil
	return configs
}
`

func TestReadWanted(t *testing.T) {
	w, err := readWanted([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.names("Pause", "Agnhost")
	if want := []string{"registry.example/pause:3.9", "registry.example/e2e/agnhost:2.1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, id := range []string{"Odd", "Named", "Gone"} {
		if got, err := w.names(id); err == nil {
			t.Errorf("%s: %v, want an error", id, got)
		}
	}
	if _, err := readWanted([]byte("package")); err == nil {
		t.Error("no error for what is no Go file")
	}
}
