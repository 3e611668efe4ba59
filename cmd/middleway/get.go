package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/kubectl"
	"github.com/middleway-net/middleway/lab/playground"
)

// controlPlane is that of the cluster in a state directory.
type controlPlane struct{ dir string }

var (
	_ kubectl.Client  = controlPlane{}
	_ kubectl.Changer = controlPlane{}
)

func (c controlPlane) List(ctx context.Context, q control.Query) ([]control.Object, error) {
	return playground.List(ctx, c.dir, q)
}

func (c controlPlane) Watch(ctx context.Context, q control.Query, see func(control.Event) error) error {
	return playground.Watch(ctx, c.dir, q, see)
}

func (c controlPlane) Apply(ctx context.Context, a control.ApplyRequest) (control.ApplyResult, error) {
	return playground.Apply(ctx, c.dir, a)
}

func (c controlPlane) Delete(ctx context.Context, d control.DeleteRequest, told func(control.Ref)) error {
	return playground.Delete(ctx, c.dir, d, told)
}

func (c controlPlane) Scale(ctx context.Context, s control.ScaleRequest, told func(control.Ref)) error {
	return playground.Scale(ctx, c.dir, s, told)
}

func getCommand() *cobra.Command {
	var g kubectl.Get
	var c controlPlane
	cmd := &cobra.Command{
		Use:   "get KIND[,KIND]... [NAME]... | KIND/NAME...",
		Short: "Show the objects of `middleway up`, as kubectl shows them",
		Long: `Shows objects of the cluster that middleway up has made: pods (po), services (svc), deployments (deploy), replicasets (rs),
endpointslices, nodes (no), namespaces (ns), or all, which are the first four. Kinds, columns, messages and flags are kubectl's;
jsonpath, go-template and custom-columns take what kubectl's take.

middleway status says besides why a pod is not well.`,
		Example: `  middleway get pods -o wide
  middleway get all -A
  middleway get deploy,svc -l app=front
  middleway get endpointslices -w
  middleway get svc front -o jsonpath='{.spec.clusterIP}'
  middleway get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := g.Run(cmd.Context(), c, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if cmd.Context().Err() != nil {
				return &exitError{exitInterrupted, nil}
			}
			return saidBy(cmd, err)
		},
	}
	flags := cmd.Flags()
	addNamespaceFlag(cmd, &g.Namespace)
	flags.BoolVarP(&g.AllNamespaces, "all-namespaces", "A", false, "of all namespaces")
	addSelectorFlag(cmd, &g.Selector)
	flags.StringVar(&g.FieldSelector, "field-selector", "", "fields that objects have to have, like spec.nodeName=node-1,status.phase!=Running")
	flags.StringVarP(&g.Output, "output", "o", "", "wide, json, yaml, name, jsonpath=…, go-template=… or custom-columns=…; default a table")
	flags.BoolVarP(&g.Watch, "watch", "w", false, "go on with what changes, until Ctrl-C")
	flags.BoolVar(&g.WatchOnly, "watch-only", false, "only what changes from now on")
	flags.BoolVar(&g.WatchEvents, "output-watch-events", false, "tell what has happened to what is watched: ADDED, MODIFIED, DELETED")
	flags.BoolVar(&g.ShowLabels, "show-labels", false, "a last column with all labels")
	flags.StringSliceVarP(&g.LabelColumns, "label-columns", "L", nil, "a column for each of these labels")
	flags.BoolVar(&g.NoHeaders, "no-headers", false, "no header")
	flags.StringVar(&g.SortBy, "sort-by", "", "the field to sort by, like .metadata.creationTimestamp")
	flags.BoolVar(&g.IgnoreNotFound, "ignore-not-found", false, "what is not there is no error")
	addDirFlag(cmd, &c.dir)
	return cmd
}

func addNamespaceFlag(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "default", "namespace of the objects")
}

func addSelectorFlag(cmd *cobra.Command, selector *string) {
	cmd.Flags().StringVarP(selector, "selector", "l", "", "labels that objects have to have, like app=web or 'tier in (a, b),!old'")
}
