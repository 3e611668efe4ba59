package folder

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/stack/service"
)

// BenchmarkEvent measures the time from the writing of an EndpointSlice until the table that follows it was handed on, among 1,000
// Services with 10 endpoints each; events come one after the other.
func BenchmarkEvent(b *testing.B) {
	const many = 1000
	w, err := NewWriter(filepath.Join(b.TempDir(), "state"))
	put := func(api any) {
		if err == nil {
			err = w.Put(api)
		}
	}
	slice := func(i, version int) any {
		var addrs []string
		for k := range 10 {
			addrs = append(addrs, fmt.Sprintf("10.%d.%d.%d", 244+version, i/100, i%100+k))
		}
		return endpoints(fmt.Sprint("web-", i), addrs...)
	}
	for i := range many {
		put(service80(fmt.Sprint("web-", i), fmt.Sprintf("10.96.%d.%d", i/100, i%100)))
		put(slice(i, 0))
	}
	if err != nil || w.Complete() != nil {
		b.Fatal(err)
	}
	set := make(chan struct{}, 1)
	log := slog.New(slog.DiscardHandler)
	p := k8s.New(k8s.Config{Source: &Source{Dir: w.dir, Log: log}, Node: "n1", Log: log, SetServices: func(*service.Table) { set <- struct{}{} }})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	<-set
	n := 0
	for b.Loop() {
		n++
		put(slice(n%many, n/many%2+1))
		<-set
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	if err != nil {
		b.Fatal(err)
	}
}
