package tun

// WithClonePath returns c with another device file than /dev/net/tun.
func (c Config) WithClonePath(path string) Config {
	c.clonePath = path
	return c
}

// ProbeAt is Probe with another device file.
func ProbeAt(path string) (Offloads, error) { return probe(Config{clonePath: path}) }
