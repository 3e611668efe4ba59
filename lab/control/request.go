package control

// Query chooses objects of one kind.
type Query struct {
	Kind string `json:"kind"` // as KindNamed takes it
	// Namespace is whose objects are chosen; "" for those of all. Kinds without namespaces do not look at it.
	Namespace string   `json:"namespace,omitempty"`
	Names     []string `json:"names,omitempty"`    // default all. One that is not there is an error (apierrors.IsNotFound)
	Selector  string   `json:"selector,omitempty"` // of labels, as kubectl's -l has it: app=web,tier in (a, b)
}

// Ref names an object.
type Ref struct {
	Kind      string `json:"kind"`            // Deployment
	Group     string `json:"group,omitempty"` // apps
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Event is a change of an object that a watcher asked for.
type Event struct {
	Type   EventType
	Object Object // as it is by then; of a deleted one, as it was last
}

// EventType is what happened to an object, in the API's words.
type EventType string

// What may happen. A watch begins with Added for each object that there is.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
)

// File is a manifest of a request.
type File struct {
	Name string `json:"name"` // for messages
	Text []byte `json:"text"`
}

// ApplyRequest makes objects what manifests say.
type ApplyRequest struct {
	Namespace string `json:"namespace,omitempty"` // of objects that name none; default "default"
	Files     []File `json:"files"`
}

// ApplyResult is what became of an ApplyRequest.
type ApplyResult struct {
	Applied  []Applied `json:"applied"` // in the manifests' order
	Warnings []string  `json:"warnings,omitempty"`
}

// Applied is what became of one object.
type Applied struct {
	Ref
	Outcome Outcome `json:"outcome,omitempty"`
	Error   string  `json:"error,omitempty"` // why it was refused; Outcome is "" then
}

// Outcome is what was done to an object, in kubectl's words.
type Outcome string

// What apply does.
const (
	Created    Outcome = "created"
	Configured Outcome = "configured"
	Unchanged  Outcome = "unchanged"
)

// DeleteRequest deletes what Query chooses, or the objects of Files.
type DeleteRequest struct {
	Query     *Query `json:"query,omitempty"`
	Namespace string `json:"namespace,omitempty"` // of objects in Files that name none; default "default"
	Files     []File `json:"files,omitempty"`
	// IgnoreNotFound: an object that is not there is no error.
	IgnoreNotFound bool `json:"ignoreNotFound,omitempty"`
	// Wait until they are gone, and not only asked to go.
	Wait bool `json:"wait,omitempty"`
	// GracePeriod in seconds is in place of the pods' own, if it is not nil; 0 kills them.
	GracePeriod *int64 `json:"gracePeriod,omitempty"`
}

// ScaleRequest sets the number of replicas of Deployments.
type ScaleRequest struct {
	Query
	Replicas int32 `json:"replicas"`
	// Current is how many there must be by now, if it is not nil.
	Current *int32 `json:"current,omitempty"`
}
