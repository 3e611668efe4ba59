package playground

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
)

// The test binary is the CNI plugin too.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == cni.PluginName {
		os.Exit(cni.Main("test"))
	}
	lab.Main(m)
}
