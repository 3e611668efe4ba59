package tun

// WithClonePath returns c with another device file than /dev/net/tun.
func (c Config) WithClonePath(path string) Config {
	c.clonePath = path
	return c
}
