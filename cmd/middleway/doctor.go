package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/doctor"
)

const doctorHelp = `Finds out what this machine has of what middleway uses, and prints which ways of running work here: a node of a cluster, a
cluster on this machine as root or as an ordinary user, and what can join its nodes. Whatever is missing comes with what
middleway does without it, and one remedy.

It tries each thing, in namespaces and processes that end with it, and leaves nothing behind; it asks neither the kernel's
version nor a list of modules. It finds out for the user who calls it; root hears about ordinary users too. It takes well
under a second; what does not answer within some seconds is unknown.

The exit code is 0 if at least one way of running works for this user, and 1 if none does. docs/doctor.md is the manual.`

func doctorCommand() *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell which ways of running work on this machine, and what to change for the others",
		Long:  doctorHelp,
		Example: `  middleway doctor
  sudo middleway doctor
  middleway doctor -o json | jq '.findings[] | select(.state == "missing") | {title, remedy}'
  middleway doctor -o json | jq -e '.ways[] | select(.name == "playground-rootless").works'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("doctor: -o %q: want text or json", output)
			}
			out := cmd.OutOrStdout()
			r := examine(cmd.Context(), out, movesCursor(out) && output == "text")
			if cmd.Context().Err() != nil {
				return &exitError{code: exitInterrupted}
			}
			if err := printReport(out, r, output, doctor.TextConfig{Color: wantsColor(out), Width: textWidth(out), All: all}); err != nil {
				return err
			}
			if !r.Works() {
				return errSilent // the report says it
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "a line for each thing that works, too, with what was seen")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printReport(w io.Writer, r *doctor.Report, output string, c doctor.TextConfig) error {
	if output == "json" {
		return printJSON(w, r)
	}
	return r.Print(w, c)
}

// eraseLine goes back to the beginning of the terminal's line and erases it.
const eraseLine = "\r\x1b[K"

// examine shows on a terminal what was tried last, as long as it takes.
func examine(ctx context.Context, w io.Writer, terminal bool) *doctor.Report {
	if !terminal {
		return doctor.Examine(ctx, nil)
	}
	defer fmt.Fprint(w, eraseLine)
	tried := 0
	return doctor.Examine(ctx, func(f doctor.Finding) {
		tried++
		fmt.Fprintf(w, "%s%d tried: %s", eraseLine, tried, f.Title)
	})
}

// withDoctor says where to look further to whom the machine forbids the lab.
func withDoctor(err error) error {
	if errors.Is(err, lab.ErrForbidden) {
		return fmt.Errorf("%w; `middleway doctor` tells what else this machine lacks", err)
	}
	return err
}
