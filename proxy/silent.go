package proxy

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// setSilent has a socket take nothing of others from now on, without a word to who sends, or everything again. It is a classic BPF filter
// (socket(7), SO_ATTACH_FILTER), which keeps none of a packet's bytes, but those that the host sends to its own address: the traffic
// policies are about clients outside (core/v1, externalTrafficPolicy).
func setSilent(fd int, silent bool) error {
	if !silent {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach filter: %w", err)
		}
		return nil
	}
	program, err := bpf.Assemble(silence())
	if err != nil {
		return fmt.Errorf("make filter: %w", err)
	}
	var filter []unix.SockFilter
	for _, i := range program {
		filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// ofNetwork is where a filter finds the IP header, whatever its socket shows it (SKF_NET_OFF of linux/filter.h).
const ofNetwork = 0xfff00000

// silence returns a program that keeps the packets whose source and destination are one address.
func silence() []bpf.Instruction {
	v4 := keepEqual([2]uint32{12, 16})                                                         // RFC 791, section 3.1
	v6 := keepEqual([2]uint32{8, 24}, [2]uint32{12, 28}, [2]uint32{16, 32}, [2]uint32{20, 36}) // RFC 8200, section 3
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: ofNetwork, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: uint8(len(v4))},
	}
	return append(append(program, v4...), v6...)
}

// keepEqual returns a program that keeps a packet whose IP header has the same word at both offsets of each pair.
func keepEqual(pairs ...[2]uint32) (program []bpf.Instruction) {
	for i, p := range pairs {
		left := len(pairs) - 1 - i
		program = append(program, bpf.LoadAbsolute{Off: ofNetwork + p[0], Size: 4}, bpf.TAX{}, bpf.LoadAbsolute{Off: ofNetwork + p[1], Size: 4},
			bpf.JumpIfX{Cond: bpf.JumpNotEqual, SkipTrue: uint8(4*left + 1)})
	}
	return append(program, bpf.RetConstant{Val: 0xffffffff}, bpf.RetConstant{Val: 0})
}
