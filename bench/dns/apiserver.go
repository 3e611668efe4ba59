package dns

import (
	"encoding/json"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiServer answers what CoreDNS asks of an API server: lists, and watches in which nothing happens.
func apiServer(o objects) http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, list any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			query := r.URL.Query()
			switch {
			case query.Get("sendInitialEvents") != "": // a list as a watch, which old servers do not have either
				w.WriteHeader(http.StatusUnprocessableEntity)
				_ = json.NewEncoder(w).Encode(metav1.Status{
					TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
					Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "sendInitialEvents is not supported",
				})
			case query.Get("watch") != "":
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			default:
				_ = json.NewEncoder(w).Encode(list)
			}
		})
	}
	meta := metav1.ListMeta{ResourceVersion: "1"}
	handle("/api/v1/namespaces", corev1.NamespaceList{TypeMeta: metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}, ListMeta: meta, Items: o.namespaces})
	handle("/api/v1/services", corev1.ServiceList{TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}, ListMeta: meta, Items: o.services})
	handle("/apis/discovery.k8s.io/v1/endpointslices", discoveryv1.EndpointSliceList{
		TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}, ListMeta: meta, Items: o.slices,
	})
	return mux
}
