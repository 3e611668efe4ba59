package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/kubectl"
	"github.com/middleway-net/middleway/lab/manifest"
)

func applyCommand() *cobra.Command {
	var a kubectl.Apply
	var c controlPlane
	var files []string
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Make objects of `middleway up` what manifests say",
		Long: `Makes the objects that manifests describe, or changes them to what these say, and prints a line for each: created, configured or
unchanged. A mistake in a manifest is one sentence with file, line and field, and changes nothing of its file.

What the files of middleway up -f describe follows those files. What is applied stays until it is deleted, or the cluster ends.`,
		Example: `  middleway apply -f shop.yaml
  middleway apply -f docs/examples/shop -n shop
  middleway get deploy web -o yaml | sed s/replicas:.*/replicas:\ 3/ | middleway apply -f -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if a.Files, err = readFiles(cmd, files); err != nil {
				return saidBy(cmd, err)
			}
			return saidBy(cmd, a.Run(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	cmd.Flags().StringVarP(&a.Namespace, "namespace", "n", "default", "namespace of objects that name none")
	addManifestFlag(cmd, &files)
	addNameOutputFlag(cmd, &a.Output)
	addDirFlag(cmd, &c.dir)
	return cmd
}

func deleteCommand() *cobra.Command {
	var d kubectl.Delete
	var c controlPlane
	var files []string
	var wait, now, force bool
	var grace int64
	cmd := &cobra.Command{
		Use:   "delete -f FILE|DIR|- | KIND NAME... | KIND/NAME... | KIND -l LABELS | KIND --all",
		Short: "Delete objects of `middleway up`",
		Long: `Deletes objects, and returns when they are gone: pods get SIGTERM, and SIGKILL when their grace period is over. A pod of a
Deployment gets a successor; delete the Deployment. With a namespace all that is in it goes.`,
		Example: `  middleway delete pod web-0
  middleway delete deploy,svc -l app=front
  middleway delete -f shop.yaml
  middleway delete pod web-0 --grace-period 0 --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if d.Files, err = readFiles(cmd, files); err != nil {
				return saidBy(cmd, err)
			}
			d.NoWait = !wait
			if d.GracePeriod, err = gracePeriod(cmd, grace, now, force); err != nil {
				return saidBy(cmd, err)
			}
			return saidBy(cmd, d.Run(cmd.Context(), c, args, cmd.OutOrStdout()))
		},
	}
	addNamespaceFlag(cmd, &d.Namespace)
	addManifestFlag(cmd, &files)
	addSelectorFlag(cmd, &d.Selector)
	flags := cmd.Flags()
	flags.BoolVar(&d.All, "all", false, "all of the kinds")
	flags.BoolVar(&d.IgnoreNotFound, "ignore-not-found", false, "what is not there is no error")
	flags.BoolVar(&wait, "wait", true, "return when they are gone; else when they are asked to go")
	flags.Int64Var(&grace, "grace-period", -1, "seconds between SIGTERM and SIGKILL; default each pod's own; 0 wants --force")
	flags.BoolVar(&now, "now", false, "as --grace-period 1")
	flags.BoolVar(&force, "force", false, "with --grace-period 0, or without any: kill at once")
	addNameOutputFlag(cmd, &d.Output)
	addDirFlag(cmd, &c.dir)
	return cmd
}

// gracePeriod is what the flags say together, as kubectl reads them; nil for the pods' own.
func gracePeriod(cmd *cobra.Command, grace int64, now, force bool) (*int64, error) {
	given := cmd.Flags().Changed("grace-period") && grace != -1
	switch {
	case given && grace < 0:
		return nil, fmt.Errorf("--grace-period %d: want a number of seconds", grace)
	case given && now:
		return nil, errors.New("--now is a grace period of one second; leave --grace-period out")
	case force && (given && grace > 0 || now):
		return nil, errors.New("--force kills at once; leave the grace period out")
	case given && grace == 0 && !force:
		grace = 1 // so that nobody kills by a slip
	case now:
		grace = 1
	case force:
		grace = 0
	case !given:
		return nil, nil
	}
	return &grace, nil
}

func scaleCommand() *cobra.Command {
	var s kubectl.Scale
	var c controlPlane
	var current int32
	cmd := &cobra.Command{
		Use:   "scale --replicas N deployment/NAME...",
		Short: "Set how many pods a Deployment of `middleway up` has",
		Example: `  middleway scale deployment/web --replicas 3
  middleway scale deploy --all --replicas 0
  middleway scale deploy web --current-replicas 2 --replicas 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("replicas") {
				return saidBy(cmd, errors.New("say how many: --replicas N"))
			}
			if cmd.Flags().Changed("current-replicas") && current != -1 {
				s.Current = &current
			}
			return saidBy(cmd, s.Run(cmd.Context(), c, args, cmd.OutOrStdout()))
		},
	}
	flags := cmd.Flags()
	flags.Int32Var(&s.Replicas, "replicas", 0, "how many pods there are to be")
	flags.Int32Var(&current, "current-replicas", -1, "only if there are so many by now")
	flags.BoolVar(&s.All, "all", false, "all of the kind")
	addNamespaceFlag(cmd, &s.Namespace)
	addSelectorFlag(cmd, &s.Selector)
	addNameOutputFlag(cmd, &s.Output)
	addDirFlag(cmd, &c.dir)
	return cmd
}

// readFiles reads the manifests of -f.
func readFiles(cmd *cobra.Command, paths []string) (files []control.File, err error) {
	if len(paths) == 0 {
		return nil, nil
	}
	texts, err := manifest.Load(cmd.InOrStdin(), paths...)
	for _, t := range texts {
		files = append(files, control.File{Name: t.File, Text: t.Text})
	}
	return files, err
}

func addManifestFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "manifest `file`, directory of such files, or - for standard input; may be given several times")
}

func addNameOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "name prints KIND/NAME alone")
}
