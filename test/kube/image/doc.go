// Package image makes container images without a registry and without a container engine: layers from files of this machine, its programs
// with the libraries they load, and OCI archives that `ctr images import` takes. The same files give the same bytes.
package image
