/*
 * ptrace(2) for user-mode-linux 6.1, to be preloaded.
 *
 * UML keeps the vector registers of an interrupted program in a buffer of 2696 bytes, the size of a processor state with AVX-512. Linux
 * takes a state back only in full (PTRACE_SETREGSET answers EFAULT otherwise), and that of newer processors is larger: 11008 bytes with
 * AMX. UML then ends with "ptrace set fp regs failed". Here a short state is made a full one: what UML did not keep is as at the start of
 * a program. Nothing is lost by that, for Linux gives AMX only to programs that ask for it, and UML passes no such question on.
 *
 * The layout is that of XSAVE in its standard form (Intel SDM volume 1, 13.4): 512 bytes of x87 and SSE, a header of 64 bytes that begins
 * with a bit for each component that is there, then the components, each where CPUID leaf 0xD says.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NOTE_XSTATE ((void *)0x202) /* NT_X86_XSTATE */
#define HEADER_AT 512
#define MAX_STATE (64 << 10)

static size_t full_size;	/* of the state on this processor */
static uint64_t kept;		/* components that lie within UML's buffer, as bits */

static void measure(size_t buffer)
{
	unsigned int size, offset, c, d;

	__cpuid_count(0xd, 0, size, offset, c, d);
	full_size = offset;
	kept = 3; /* x87 and SSE */
	for (int i = 2; i < 63; i++) {
		__cpuid_count(0xd, i, size, offset, c, d);
		if (offset && offset + size <= buffer) /* without offset it is the kernel's */
			kept |= 1ull << i;
	}
}

static long set_xstate(pid_t pid, const struct iovec *given)
{
	static char full[MAX_STATE]; /* one thread of UML does this */
	struct iovec state = { full, full_size };
	uint64_t there;

	memcpy(full, given->iov_base, given->iov_len);
	memcpy(&there, full + HEADER_AT, sizeof(there));
	there &= kept;
	memcpy(full + HEADER_AT, &there, sizeof(there));
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NOTE_XSTATE, &state);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list args;
	pid_t pid;
	void *addr, *data;
	long word, result;

	va_start(args, request);
	pid = va_arg(args, pid_t);
	addr = va_arg(args, void *);
	data = va_arg(args, void *);
	va_end(args);

	switch (request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER: /* the library returns what the kernel writes */
		result = syscall(SYS_ptrace, request, pid, addr, &word);
		if (result < 0)
			return result;
		errno = 0;
		return word;
	case PTRACE_SETREGSET:
		if (addr != NOTE_XSTATE)
			break;
		if (!full_size)
			measure(((struct iovec *)data)->iov_len);
		if (((struct iovec *)data)->iov_len < full_size && full_size <= MAX_STATE)
			return set_xstate(pid, data);
		break;
	default:
		break;
	}
	return syscall(SYS_ptrace, request, pid, addr, data);
}
