package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Process is one of a pod, by its id outside of all nodes.
type Process struct {
	PID  int
	Argv []string
}

// Processes is those of a pod of the node, the sandbox's among them, in the order of their ids. It asks no API server.
func (n *Node) Processes(podUID string) ([]Process, error) {
	pids, err := n.c.cgroup(n.Name).PodProcesses(podUID)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	var all []Process
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		all = append(all, Process{PID: pid, Argv: strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00")})
	}
	return all, nil
}

// PodUID asks the API server for the UID of a pod, and the node that it is on.
func (c *Cluster) PodUID(ctx context.Context, namespace, name string) (uid, node string, err error) {
	var pod struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
		Spec struct {
			NodeName string `json:"nodeName"`
		} `json:"spec"`
	}
	err = c.api.get(ctx, fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", namespace, name), &pod)
	return pod.Metadata.UID, pod.Spec.NodeName, err
}

// KillProgram kills -9 every process of the node's pods that runs a program of that name with these first arguments, and returns how many
// there were. Who started them is left to start them again.
func (n *Node) KillProgram(name string, args ...string) (int, error) {
	processes, err := n.Processes("") // of all pods
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, p := range processes {
		if filepath.Base(p.Argv[0]) != name || !slices.Equal(p.Argv[1:min(len(p.Argv), 1+len(args))], args) {
			continue
		}
		if err := unix.Kill(p.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return killed, err
		}
		killed++
	}
	return killed, nil
}

// APIReady waits until the API server answers, and looks meanwhile whether it can.
func (c *Cluster) APIReady(ctx context.Context) error { return c.awaitAPI(ctx, c.AllNodes()[0]) }
