// Package apiserver tests node daemons against a real API server: kube-apiserver and etcd in a namespace of the lab, and daemons with the
// rights of deploy/middleway.yaml and no more. There are no kubelets and no controllers; the tests write what those would.
//
// The two programs are built by test/kube; `make test-apiserver` does that and sets MIDDLEWAY_APISERVER to the directory they lie in. Without it
// there is nothing to test here.
package apiserver
