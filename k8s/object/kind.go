package object

// Kind is one of the kinds of objects that a node reads.
type Kind uint8

// Kinds.
const (
	Nodes Kind = iota
	Namespaces
	Pods
	Services
	EndpointSlices
)

// Kinds are all kinds, each by its number.
var Kinds = []Kind{Nodes, Namespaces, Pods, Services, EndpointSlices}

// String returns the kind's name in paths of the API, for example "endpointslices".
func (k Kind) String() string {
	return [...]string{"nodes", "namespaces", "pods", "services", "endpointslices"}[k]
}

// Namespaced reports whether the kind's objects lie in namespaces.
func (k Kind) Namespaced() bool { return k >= Pods }

// Object is a *Node, *Namespace, *Pod, *Service or *EndpointSlice.
type Object interface {
	// Kind is the object's kind.
	Kind() Kind
	// Named is its name within the kind.
	Named() Key
}

// Named returns the key itself.
func (k Key) Named() Key { return k }

// Named returns the node's name.
func (n *Node) Named() Key { return Key{Name: n.Name} }

// Named returns the namespace's name.
func (n *Namespace) Named() Key { return Key{Name: n.Name} }

// Kind implements Object.
func (*Node) Kind() Kind { return Nodes }

// Kind implements Object.
func (*Namespace) Kind() Kind { return Namespaces }

// Kind implements Object.
func (*Pod) Kind() Kind { return Pods }

// Kind implements Object.
func (*Service) Kind() Kind { return Services }

// Kind implements Object.
func (*EndpointSlice) Kind() Kind { return EndpointSlices }
