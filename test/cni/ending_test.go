package cni

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// A daemon that ends between grant and device is one to be asked again, whatever became of the device: the next daemon may
// have removed it.
func TestDaemonEndsDuringAdd(t *testing.T) {
	r := newRuntime(t, newNode(t, nil), "1.1.0", nil)
	s := r.sandbox("pod")
	socket := filepath.Join(t.TempDir(), "cni.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go endDuringAdd(l)
	env := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=pod", "CNI_IFNAME=eth0", "CNI_NETNS=" + s.Path()}
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"middleway","type":"middleway-cni","socket":%q}`, socket)
	eventually(t, "the plugin notices before it fails", func() bool {
		err = said(t, r, env, conf, "1.1.0")
		return err != nil && strings.Contains(err.Error(), "ended during this ADD")
	})
	wantCode(t, err, 11, "MTU")
	if got := devices(t, s.Namespace); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// endDuringAdd is a daemon that hangs up after its grant, of which no device can be made.
func endDuringAdd(l net.Listener) {
	const grant = `{"addrs":["10.244.1.9"],"mtu":1,"queues":1}`
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 4096)) // the request
		_, _ = c.Write(append([]byte{'m', 'w', 'c', 1, 0, 0, 0, byte(len(grant))}, grant...))
		_ = c.Close()
	}
}
