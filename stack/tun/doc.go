// Package tun opens and drives TUN devices, the pods' interfaces.
//
// A packet's way begins and ends here: one read hands over a frame (virtio_net_hdr and packet, a super-packet of up to 64
// KiB where the pod sends TCP), one write delivers one. Nothing is split, merged or summed in between.
//
// Device is the fast one: several queues, one a worker, super-packets whole. Portable drives the same kernel device through
// golang.zx2c4.com/wireguard/tun, which splits and merges by itself; it is there for comparison, and for kernels on which
// the fast one should not be trusted. Both speak in frames to the stack, and Device implements that package's tun.Device too.
package tun
