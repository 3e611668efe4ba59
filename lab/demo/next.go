package demo

// hint is a command to try next.
type hint struct{ command, about string }

// next returns what to try after a run. The commands call this program as it was called itself.
func (r *run) next() []hint {
	program := r.config.Program
	all := []hint{{program + " up -d", "a cluster of your own; docs/learn begins there"}}
	if r.config.Write != "" {
		all = append(all, hint{"wireshark -d udp.port==8472,vxlan " + r.config.Write, "the packet above"})
	}
	return append(all,
		hint{program + " node --help", "a node for real"},
		hint{"make test", "everything that is promised"},
		hint{"make bench", "everything that is measured"},
	)
}
