// Package cni holds the tests of the CNI plugin against a running node daemon, as a container runtime drives it: through
// libcni, which executes the plugin.
package cni
