// Package seccomp makes a machine look as if its kernel were built without something, to one program and all that it starts.
package seccomp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// refusal is an error for a system call whose first argument says what it is for.
type refusal struct {
	call  uint32
	is    uint32 // the argument has this value; 0: any
	flag  uint32 // the argument has this bit; 0: any
	errno unix.Errno
}

// WithoutIPv6 replaces this process by a program to which socket(2) says that the kernel has no IPv6. It returns only on error. Netlink
// and /proc know IPv6 all the same: a kernel without it cannot be had on one that has it.
func WithoutIPv6(argv ...string) error {
	return refuse(argv, refusal{call: unix.SYS_SOCKET, is: unix.AF_INET6, errno: unix.EAFNOSUPPORT})
}

// WithoutUserNamespaces replaces this process by a program that gets no user namespaces, as container engines forbid them. It
// returns only on error.
func WithoutUserNamespaces(argv ...string) error {
	return refuse(argv,
		refusal{call: unix.SYS_CLONE, flag: unix.CLONE_NEWUSER, errno: unix.EPERM},
		refusal{call: unix.SYS_UNSHARE, flag: unix.CLONE_NEWUSER, errno: unix.EPERM},
		refusal{call: unix.SYS_CLONE3, errno: unix.ENOSYS}, // its flags are in memory, where a filter cannot look
	)
}

// refuse replaces this process by a program to which system calls are refused.
func refuse(argv []string, refusals ...refusal) error {
	runtime.LockOSThread()
	raw, err := bpf.Assemble(filter(refusals))
	if err != nil {
		return fmt.Errorf("assemble filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0),
	); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return fmt.Errorf("execute %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// filter returns the program that looks at each call.
func filter(refusals []refusal) (all []bpf.Instruction) {
	const numberAt, argumentAt = 0, 16 // in struct seccomp_data: the number of the call, and the lower half of its first argument
	for _, r := range refusals {
		matches := bpf.Instruction(bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.is, SkipFalse: 1})
		switch {
		case r.flag != 0:
			matches = bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: r.flag, SkipFalse: 1}
		case r.is == 0:
			matches = bpf.Jump{}
		}
		all = append(all,
			bpf.LoadAbsolute{Off: numberAt, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipFalse: 3},
			bpf.LoadAbsolute{Off: argumentAt, Size: 4},
			matches,
			bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(r.errno)},
		)
	}
	return append(all, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}
