package folder

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// From a file of the folder to the table that the stack looks into.
func TestFolderToTable(t *testing.T) {
	w := newWriter(t)
	must(t, w.Put(service80("web", "10.96.0.20")))
	must(t, w.Put(endpoints("web", "10.244.1.2")))
	must(t, w.Complete())
	var table atomic.Pointer[service.Table]
	p := k8s.New(k8s.Config{
		Source: &Source{Dir: w.dir, Log: slog.New(slog.DiscardHandler)}, Node: "n1", Log: slog.New(slog.DiscardHandler),
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, SetServices: table.Store,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-done)
	}()
	f := &fixture{t: t}
	f.wait("in force", func() bool { return leadsTo(table.Load(), "10.96.0.20") == "[10.244.1.2:8080]" })
	for i := range 20 {
		want := fmt.Sprintf("10.244.1.%d", 3+i)
		must(t, w.Put(endpoints("web", want)))
		f.wait(want, func() bool { return leadsTo(table.Load(), "10.96.0.20") == "["+want+":8080]" })
	}
	if s := p.Stats(); s.LatencyMax > time.Second || s.Changes == 0 {
		t.Errorf("%d changes, the slowest after %v", s.Changes, s.LatencyMax)
	}
}

func leadsTo(t *service.Table, ip string) string {
	if t == nil {
		return "no table"
	}
	f := packet.NewFlow(packet.TCP, netip.MustParseAddrPort("10.244.1.9:40000"), netip.AddrPortFrom(netip.MustParseAddr(ip), 80))
	port, found := t.Lookup(&f)
	if found != service.AtPort {
		return "nowhere"
	}
	var list []netip.AddrPort
	for _, b := range port.Internal.Backends {
		list = append(list, b.AddrPort())
	}
	return fmt.Sprint(list)
}

func service80(name, ip string) *corev1.Service {
	s := newService(name, ip)
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}}
	return s
}

func endpoints(service string, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: service + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}
