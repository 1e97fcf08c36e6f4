// Validates CustomResourceDefinitions as the API server of the oldest supported Kubernetes does.
//
// The cost that CEL rules are estimated at differs between releases: what 1.34 accepts may be over
// 1.30's budget. This runs that release's own validation, without building a server of it.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func problems(scheme *runtime.Scheme, path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var external v1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &external); err != nil {
		return nil, err
	}
	scheme.Default(&external)
	var internal apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&external, &internal, nil); err != nil {
		return nil, err
	}
	// What the registry fills in before it validates a new object.
	for _, version := range external.Spec.Versions {
		if version.Storage {
			internal.Status.StoredVersions = []string{version.Name}
		}
	}
	var found []string
	for _, problem := range validation.ValidateCustomResourceDefinition(context.TODO(), &internal) {
		found = append(found, problem.Error())
	}
	return found, nil
}

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	failed := false
	for _, path := range os.Args[1:] {
		found, err := problems(scheme, path)
		if err != nil {
			found = append(found, err.Error())
		}
		for _, problem := range found {
			failed = true
			fmt.Printf("%s: %s\n", path, problem)
		}
	}
	if failed {
		os.Exit(1)
	}
}
