package demo

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/middleway-net/middleway/capture/pcapng"
)

// fileFact is the file with the packet that was drawn.
type fileFact struct {
	File string `json:"file"`
}

func (f *fileFact) text() string { return f.File + ", the packet above for Wireshark and tshark" }

// write saves the packet.
func (r *run) write(ctx context.Context, f *packetFact) {
	r.check(ctx, "pcapng", func(context.Context) (fact, error) {
		if err := f.save(r.config.Write); err != nil {
			return nil, fmt.Errorf("%w; --write names another file, or \"\" for none", err)
		}
		return &fileFact{r.config.Write}, nil
	})
}

// save writes a file with the frame as its only packet.
func (f *packetFact) save(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.encode(file), file.Close())
}

func (f *packetFact) encode(file *os.File) error {
	w, err := pcapng.NewWriter(file, pcapng.Section{Application: "middleway demo"})
	if err != nil {
		return err
	}
	at, err := w.AddInterface(pcapng.Interface{Name: f.On, Description: "node network", LinkType: pcapng.Ethernet})
	if err != nil {
		return err
	}
	if err := w.AddNames(f.names); err != nil {
		return err
	}
	comment := fmt.Sprintf("%d bytes of the pod network, wrapped for the node network: %d bytes added by the tunnel, %d of the link",
		f.Packet, f.Overhead, f.Bytes-f.Packet-f.Overhead)
	if err := w.WritePacket(pcapng.Packet{Interface: at, Time: f.seen, Data: f.frame, Direction: pcapng.Outbound, Comment: comment}); err != nil {
		return err
	}
	return w.Flush()
}
