package nodes

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Annotations of a Node by which flannel's nodes find each other (flannel's pkg/subnet/kube). Those with a 6 are for a tunnel over IPv6.
const (
	prefix       = "flannel.alpha.coreos.com/"
	keyManager   = prefix + "kube-subnet-manager" // "true", or flannel does not see the node
	keyType      = prefix + "backend-type"
	keyData      = prefix + "backend-data"
	keyData6     = prefix + "backend-v6-data"
	keyAddress   = prefix + "public-ip"
	keyAddress6  = prefix + "public-ipv6"
	keyOverwrite = "-overwrite" // behind keyAddress: the administrator's address in place of the node's own

	backendVXLAN = "vxlan"
)

// keyMiddleway is the annotation of middleway nodes. Its value is the version of the checks that they do with each other.
const (
	keyMiddleway   = "middleway.net/tunnel"
	valueMiddleway = "1"
)

// Annotations returns the names of those that a node announces itself by: mark is ours alone, the others are flannel's too. The first of them is without
// which no node has another as a peer.
func Annotations() (mark string, others []string) {
	return keyMiddleway, []string{keyManager, keyType, keyData, keyData6, keyAddress, keyAddress6}
}

// backendData is the value of keyData.
type backendData struct {
	VNI vxlan.VNI `json:"VNI"`
	MAC string    `json:"VtepMAC"`
}

// announced is what a node's annotations say.
type announced struct {
	address   netip.Addr
	vni       vxlan.VNI
	mac       vxlan.MAC
	middleway bool
}

// keys returns the annotations of a tunnel over one of the families.
func keys(v6 bool) (data, address string) {
	if v6 {
		return keyData6, keyAddress6
	}
	return keyData, keyAddress
}

// parse reads the annotations of another node about its tunnel over IPv6 or IPv4.
func parse(annotations map[string]string, v6 bool) (a announced, err error) {
	data, address := keys(v6)
	switch {
	case annotations[keyManager] != "true":
		return a, waiting("it has not announced a tunnel yet (annotation " + keyManager + ")")
	case annotations[keyType] != backendVXLAN:
		return a, fmt.Errorf("its annotation %s is %q; only vxlan is possible", keyType, annotations[keyType])
	case annotations[address] == "":
		return a, fmt.Errorf("it has no annotation %s: it has no tunnel of the family of this node's", address)
	}
	if a.address, err = netip.ParseAddr(annotations[address]); err != nil || a.address.Is6() != v6 || a.address.Is4In6() || a.address.Zone() != "" || !a.address.IsGlobalUnicast() {
		return a, fmt.Errorf("its annotation %s is %q, which is not the address of a node", address, annotations[address])
	}
	if a.vni, a.mac, err = parseData(annotations[data]); err != nil {
		return a, fmt.Errorf("its annotation %s: %w", data, err)
	}
	a.middleway = annotations[keyMiddleway] == valueMiddleway
	return a, nil
}

// parseData reads {"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}.
func parseData(text string) (vni vxlan.VNI, mac vxlan.MAC, err error) {
	var d backendData
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return 0, mac, fmt.Errorf(`%q is not like {"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}`, text)
	}
	if d.VNI > vxlan.MaxVNI {
		return 0, mac, fmt.Errorf("VNI %d is more than 24 bits", d.VNI)
	}
	mac, err = vxlan.ParseMAC(d.MAC)
	return d.VNI, mac, err
}

// StoredMAC returns the address of its VTEP that a node announced the last time, be it with flannel or with middleway. Kernel peers
// remember it, so that it is to be kept.
func StoredMAC(annotations map[string]string, v6 bool) (vxlan.MAC, bool) {
	data, _ := keys(v6)
	_, mac, err := parseData(annotations[data])
	return mac, err == nil
}

// Overwritten returns the address at which the administrator has the other nodes reach a node, or the zero Addr: none, or what is no
// address of the family.
func Overwritten(annotations map[string]string, v6 bool) netip.Addr {
	_, address := keys(v6)
	a, err := netip.ParseAddr(annotations[address+keyOverwrite])
	if err != nil || a.Is6() != v6 || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return a
}

// Announcement is what a node tells the others of itself.
type Announcement struct {
	// Address is its own on the underlay.
	Address netip.Addr
	VNI     vxlan.VNI
	MAC     vxlan.MAC
}

// Annotations returns those that the node's object gets, for a node whose object has the annotations has. flannel reads its own back by
// splitting backend-data at every `:"`: the value has exactly these two fields, the number first, and no space.
func (a Announcement) Annotations(has map[string]string) map[string]string {
	data, address := keys(a.Address.Is6())
	public := a.Address.String()
	if overwrite := has[address+keyOverwrite]; overwrite != "" {
		public = overwrite
	}
	return map[string]string{
		keyManager:   "true",
		keyType:      backendVXLAN,
		data:         fmt.Sprintf(`{"VNI":%d,"VtepMAC":"%v"}`, a.VNI, a.MAC),
		address:      public,
		keyMiddleway: valueMiddleway,
	}
}
