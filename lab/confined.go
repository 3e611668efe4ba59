package lab

import (
	"os"
	"strings"
)

// appArmor begins what Confined says of AppArmor.
const appArmor = "the AppArmor profile "

// Confined tells what may refuse this process something that its user is allowed: a seccomp filter, an AppArmor profile, SELinux.
// It explains failures; what is refused shows only when it is tried.
func Confined() []string {
	by := []string{}
	status, _ := os.ReadFile("/proc/self/status")
	if filtered(string(status)) {
		by = append(by, "a seccomp filter")
	}
	label, _ := os.ReadFile("/proc/self/attr/current")
	enforce, _ := os.ReadFile("/sys/fs/selinux/enforce")
	if module := confinedBy(string(label), string(enforce) == "1"); module != "" {
		by = append(by, module)
	}
	return by
}

// filtered tells from /proc/self/status whether a seccomp filter looks at this process's system calls (proc(5), Seccomp).
func filtered(status string) bool {
	for line := range strings.Lines(status) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t"); name == "Seccomp" {
			return value == "2"
		}
	}
	return false
}

// confinedBy tells from a process's security label who confines it; "" for nobody. SELinux' labels have colons, as in
// system_u:system_r:container_t:s0, AppArmor's a mode, as in docker-default (enforce).
func confinedBy(label string, enforcing bool) string {
	label = strings.TrimRight(label, "\x00\n ")
	switch {
	case label == "", strings.HasPrefix(label, "unconfined"), strings.HasPrefix(label, "kernel"):
		return ""
	case strings.Contains(label, ":"):
		if !enforcing {
			return ""
		}
		return "SELinux, as " + label
	}
	return appArmor + label
}
