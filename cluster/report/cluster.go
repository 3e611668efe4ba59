package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/stage"
)

// maxLog is how much of the end of a log goes in, in bytes.
const maxLog = 2 << 20

// AddCluster adds what there is to know about a cluster. It goes on where something is missing, and ends early only with ctx.
func (a *Archive) AddCluster(ctx context.Context, api *cluster.API) {
	c := &collection{Archive: a, api: api}
	for _, add := range []func(context.Context){c.version, c.nodes, c.daemonSet, c.configuration, c.services, c.events, c.daemons} {
		if ctx.Err() == nil {
			add(ctx)
		}
	}
	if err := ctx.Err(); err != nil {
		a.Add("the rest", nil, errors.New("interrupted"))
	}
}

// collection is the part of an archive that comes from an API server.
type collection struct {
	*Archive
	api *cluster.API
}

// get reads objects within the time that a part has.
func get[T any](ctx context.Context, api *cluster.API, path string, query url.Values) (v T, err error) {
	return part(ctx, func(ctx context.Context) (v T, err error) { return v, api.Get(ctx, path, query, &v) })
}

func (c *collection) version(ctx context.Context) {
	v, err := get[map[string]any](ctx, c.api, "/version", nil)
	c.AddJSON("cluster/version.json", v, err)
}

func (c *collection) nodes(ctx context.Context) {
	list, err := get[corev1.NodeList](ctx, c.api, "/api/v1/nodes", nil)
	var all []nodeObject
	for i := range list.Items {
		all = append(all, nodeOf(&list.Items[i]))
	}
	c.AddJSON("cluster/nodes.json", all, err)
}

func (c *collection) daemonSet(ctx context.Context) {
	d, err := part(ctx, func(ctx context.Context) (*appsv1.DaemonSet, error) { return stage.Daemons(ctx, c.api) })
	if err != nil {
		c.Add("cluster/daemonset.json", nil, err)
		return
	}
	c.AddJSON("cluster/daemonset.json", daemonSetOf(d), nil)
}

// configuration adds the files of ConfigMap middleway: the daemons' configuration and that of the CNI plugin.
func (c *collection) configuration(ctx context.Context) {
	m, err := get[corev1.ConfigMap](ctx, c.api, "/api/v1/namespaces/"+c.api.Namespace+"/configmaps/middleway", nil)
	if err != nil {
		c.Add("cluster/configmap", nil, err)
	}
	for name, text := range m.Data {
		if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".conflist") {
			c.Add("cluster/configmap/"+name, []byte(text), nil)
		}
	}
}

func (c *collection) services(ctx context.Context) {
	counts := serviceCounts{Types: map[string]int{}, Scheduler: map[string]int{}}
	list, err := get[corev1.ServiceList](ctx, c.api, "/api/v1/services", nil)
	namespaces := map[string]bool{}
	for i := range list.Items {
		counts.count(&list.Items[i])
		namespaces[list.Items[i].Namespace] = true
	}
	counts.Namespaces = len(namespaces)
	slices, errSlices := get[discoveryv1.EndpointSliceList](ctx, c.api, "/apis/discovery.k8s.io/v1/endpointslices", nil)
	for _, s := range slices.Items {
		counts.Slices++
		counts.Endpoints += len(s.Endpoints)
	}
	c.AddJSON("cluster/services.json", counts, errors.Join(err, errSlices))
}

// events adds those of middleway's namespace, those about nodes, and those that daemons wrote about other objects.
func (c *collection) events(ctx context.Context) {
	list, err := get[corev1.EventList](ctx, c.api, "/api/v1/events", nil)
	if errors.Is(err, cluster.ErrForbidden) {
		list, err = get[corev1.EventList](ctx, c.api, "/api/v1/namespaces/"+c.api.Namespace+"/events", nil)
	}
	all := []eventObject{}
	for i := range list.Items {
		e := &list.Items[i]
		if o := eventOf(e); e.Namespace == c.api.Namespace || e.InvolvedObject.Kind == "Node" || strings.HasPrefix(o.By, "middleway") {
			all = append(all, o)
		}
	}
	slices.SortStableFunc(all, func(a, b eventObject) int { return a.Last.Compare(b.Last.Time) })
	c.AddJSON("cluster/events.json", all, err)
}

// daemons adds the daemons' pods, their logs, and what each tells of itself and its machine.
func (c *collection) daemons(ctx context.Context) {
	pods, err := part(ctx, func(ctx context.Context) (map[string]*corev1.Pod, error) { return stage.DaemonPods(ctx, c.api) })
	if err == nil && len(pods) == 0 {
		err = fmt.Errorf("there is no pod of middleway in namespace %s", c.api.Namespace)
	}
	all := []podObject{}
	names := []string{}
	for name, p := range pods {
		all, names = append(all, podOf(p)), append(names, name)
	}
	slices.SortFunc(all, func(a, b podObject) int { return strings.Compare(a.Node, b.Node) })
	slices.Sort(names)
	c.AddJSON("cluster/pods.json", all, err)
	for _, name := range names {
		if ctx.Err() != nil {
			return
		}
		p := pods[name]
		c.logs(ctx, "nodes/"+name, p)
		c.local(ctx, "nodes/"+name, p)
	}
}

// logs adds the logs of all containers of a pod, those of containers that ended before among them.
func (c *collection) logs(ctx context.Context, below string, p *corev1.Pod) {
	for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		read := func(previous string) ([]byte, error) {
			query := url.Values{"container": {status.Name}, "previous": {previous}, "timestamps": {"true"}}
			return part(ctx, func(ctx context.Context) ([]byte, error) {
				return c.api.Text(ctx, "/api/v1/namespaces/"+p.Namespace+"/pods/"+p.Name+"/log", query, maxLog)
			})
		}
		text, err := read("false")
		if len(text) > 0 || err != nil || status.Name == stage.DaemonContainer {
			c.Add(below+"/log-"+status.Name+".txt", text, err)
		}
		if status.RestartCount > 0 {
			text, err := read("true")
			c.Add(below+"/log-"+status.Name+"-previous.txt", text, err)
		}
	}
}

// local has the daemon's container report on itself.
func (c *collection) local(ctx context.Context, below string, p *corev1.Pod) {
	out, err := part(ctx, func(ctx context.Context) ([]byte, error) {
		where := cluster.Container{Namespace: p.Namespace, Pod: p.Name, Name: stage.DaemonContainer}
		return c.api.Output(ctx, where, stage.Argv("report", "--local", "--file", "-"), maxLocal)
	})
	if err == nil {
		err = c.copyFrom(below, bytes.NewReader(out))
	}
	if err != nil {
		c.Add(below+"/status.json and what else the daemon tells", nil, err)
	}
}
