package components

// A Need is something that this machine has to have, and Debian's package of it.
type Need struct {
	Package string
	Program string // in PATH; or
	File    string
}

// imageNeeds are the programs that are packed into images.
var imageNeeds = []Need{
	{Package: "busybox-static", Program: "busybox"},
	{Package: "dash", Program: "dash"},
	{Package: "bash", Program: "bash"},
	{Package: "wget", Program: "wget"},
	{Package: "curl", Program: "curl"},
	{Package: "bind9-dnsutils", Program: "dig"},
	{Package: "bind9-host", Program: "host"},
	{Package: "netcat-openbsd", Program: "nc"},
	{Package: "socat", Program: "socat"},
	{Package: "iperf", Program: "iperf"},
	{Package: "iproute2", Program: "ip"},
	{Package: "iptables", Program: "iptables"},
	{Package: "nftables", Program: "nft"},
	{Package: "conntrack", Program: "conntrack"},
}
