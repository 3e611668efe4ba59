package capture

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/middleway-net/middleway/capture/pcapng"
)

// FileConfig describes a File.
type FileConfig struct {
	// Application and Comment say what made the capture, and how.
	Application, Comment string
	// Filter is what was asked for.
	Filter string
	// SnapLen is how many bytes of each packet are kept at most. 0: all.
	SnapLen int
}

// File writes a capture as pcapng, whose interfaces are named NODE/INTERFACE.
type File struct {
	w          *pcapng.Writer
	config     FileConfig
	started    time.Time
	interfaces map[interfaceKey]*fileInterface
	named      map[Name]bool
}

type interfaceKey struct{ node, name string }

type fileInterface struct {
	number int
	seen   uint64
}

// NewFile begins a file.
func NewFile(w io.Writer, c FileConfig) (*File, error) {
	pw, err := pcapng.NewWriter(w, pcapng.Section{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: c.Application, Comment: c.Comment})
	if err != nil {
		return nil, err
	}
	return &File{w: pw, config: c, started: time.Now(), interfaces: map[interfaceKey]*fileInterface{}, named: map[Name]bool{}}, nil
}

// Start adds a node's interfaces.
func (f *File) Start(s *Start) error {
	for _, i := range s.Interfaces {
		if _, err := f.add(s.Node, i); err != nil {
			return err
		}
	}
	return f.Names(s.Names)
}

func (f *File) add(node string, i Interface) (*fileInterface, error) {
	number, err := f.w.AddInterface(pcapng.Interface{
		Name: node + "/" + i.Name, Description: i.Description, Filter: f.config.Filter, LinkType: pcapng.Raw, SnapLen: uint32(f.config.SnapLen),
	})
	added := &fileInterface{number: number}
	f.interfaces[interfaceKey{node, i.Name}] = added
	return added, err
}

// Names adds names of addresses.
func (f *File) Names(names []Name) error {
	var fresh []pcapng.Name
	for _, n := range names {
		if !f.named[n] {
			f.named[n] = true
			fresh = append(fresh, pcapng.Name{Addr: n.Addr, Name: n.Name})
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return f.w.AddNames(fresh)
}

// Record writes a packet.
func (f *File) Record(r *Record) error {
	i := f.interfaces[interfaceKey{r.Node, r.Interface}]
	if i == nil { // a pod that came later
		var err error
		if i, err = f.add(r.Node, Interface{Name: r.Interface}); err != nil {
			return err
		}
	}
	i.seen++
	direction := pcapng.Inbound
	if r.Direction == Out {
		direction = pcapng.Outbound
	}
	return f.w.WritePacket(pcapng.Packet{
		Interface: i.number, Time: r.Time, Data: r.Data, Length: r.Length, Direction: direction, Comment: r.Comment(),
	})
}

// Flush hands on what was written: it is a complete file.
func (f *File) Flush() error { return f.w.Flush() }

// End writes the statistics of a node's interfaces.
func (f *File) End(node string, lost map[string]uint64) error {
	var keys []interfaceKey
	for k := range f.interfaces {
		if k.node == node {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b interfaceKey) int { return f.interfaces[a].number - f.interfaces[b].number })
	for _, k := range keys {
		i := f.interfaces[k]
		s := pcapng.Statistics{Start: f.started, End: time.Now(), Captured: i.seen + lost[k.name], Lost: lost[k.name]}
		if err := f.w.WriteStatistics(i.number, s); err != nil {
			return fmt.Errorf("write statistics of %s/%s: %w", k.node, k.name, err)
		}
	}
	return nil
}
