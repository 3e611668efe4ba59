// Package rootless tests nodes of ordinary users on hosts of their own: network namespaces that share nothing but an IP path, each with
// a user, a home and a run directory. A host's node is what a rootless container engine makes: a user, network and mount namespace
// with a daemon, pods that a runtime attaches by the plugin, and outside of it `middleway sockets`.
//
// As root the hosts' users are different ones. An ordinary user has only one uid to give, which then is that of both hosts.
package rootless
