package apiserver

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

const manifest = "../../deploy/middleway.yaml"

// grant gives the daemons the rights that the manifest has for them, and returns a token of their account.
func (s *apiServer) grant(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(manifest)
	must(t, err)
	var account *corev1.ServiceAccount
	for docs := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(b))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		must(t, err)
		ctx, rbac, create := t.Context(), s.RbacV1(), metav1.CreateOptions{}
		switch o := o.(type) {
		case *corev1.Namespace:
			_, err = s.CoreV1().Namespaces().Create(ctx, o, create)
		case *corev1.ServiceAccount:
			account, err = s.CoreV1().ServiceAccounts(o.Namespace).Create(ctx, o, create)
		case *rbacv1.ClusterRole:
			_, err = rbac.ClusterRoles().Create(ctx, o, create)
		case *rbacv1.ClusterRoleBinding:
			_, err = rbac.ClusterRoleBindings().Create(ctx, o, create)
		case *rbacv1.Role:
			_, err = rbac.Roles(o.Namespace).Create(ctx, o, create)
		case *rbacv1.RoleBinding:
			_, err = rbac.RoleBindings(o.Namespace).Create(ctx, o, create)
		}
		must(t, err)
	}
	if account == nil {
		t.Fatalf("%s has no ServiceAccount", manifest)
	}
	token, err := s.CoreV1().ServiceAccounts(account.Namespace).CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	return token.Status.Token
}
