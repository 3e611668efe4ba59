package playground

import (
	"maps"
	"slices"

	"github.com/middleway-net/middleway/lab/manifest"
)

// ManifestStatus is a file of manifests that has a mistake. What it held before stays in force.
type ManifestStatus struct {
	File    string `json:"file"`
	Message string `json:"message"`
}

// follow follows the files of the manifests until the cluster ends.
func (c *Cluster) follow() {
	c.tasks.Go(func() {
		c.follower.Run(c.reconciler.ctx, func(s manifest.State) {
			// What one file may have and another one has is found out last.
			followed, _ := c.split(s.Objects)
			for _, err := range c.control.Follow(followed) {
				if s.Mistakes[err.File] == nil {
					s.Mistakes[err.File] = err
				}
			}
			c.tell(s)
		})
	})
}

// tell prints what manifests have that was not told yet.
func (c *Cluster) tell(s manifest.State) {
	for _, w := range s.Warnings {
		c.text.warning(w)
	}
	mistakes := map[string]string{}
	for file, err := range s.Mistakes {
		mistakes[file] = err.Error()
	}
	c.mu.Lock()
	before := c.mistakes
	c.mistakes = mistakes
	c.mu.Unlock()
	for _, file := range slices.Sorted(maps.Keys(mistakes)) {
		if mistakes[file] != before[file] {
			c.text.mistake(mistakes[file])
		}
	}
	for _, file := range slices.Sorted(maps.Keys(before)) {
		if _, still := mistakes[file]; !still {
			c.text.event(file, "the mistake is gone")
		}
	}
}

// manifestsLocked returns the files that have a mistake.
func (c *Cluster) manifestsLocked() (all []ManifestStatus) {
	for _, file := range slices.Sorted(maps.Keys(c.mistakes)) {
		all = append(all, ManifestStatus{file, c.mistakes[file]})
	}
	return all
}
