package report

import (
	"regexp"
	"slices"
	"strings"
)

// removed stands in place of a secret.
const removed = "[removed]"

// Things that are secrets wherever they stand.
var (
	privateKey = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)
	jwt        = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?`) // RFC 7519
	authHeader = regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/-]{6,}=*`)               // RFC 6750, RFC 7617
	userInfo   = regexp.MustCompile(`://[^/\s:@"']+:[^/\s@"']+@`)                                     // RFC 3986
	bootstrap  = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)                                  // kubeadm's join tokens
	// named is a value after a name that says what it is, as in YAML, JSON, a query or key=value.
	named = regexp.MustCompile(`(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|key-data|authorization)[\w.-]*\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|\[removed\]|[^\s"',;&}\]]+)`)
)

// scrub removes what looks like a secret.
func scrub(b []byte) []byte {
	b = privateKey.ReplaceAll(b, []byte(removed))
	b = authHeader.ReplaceAll(b, []byte("${1}${2}"+removed))
	b = jwt.ReplaceAll(b, []byte(removed))
	b = userInfo.ReplaceAll(b, []byte("://"+removed+"@"))
	b = bootstrap.ReplaceAll(b, []byte(removed))
	return named.ReplaceAllFunc(b, func(m []byte) []byte {
		parts := named.FindSubmatch(m)
		value := string(parts[2])
		switch {
		case plain(value):
			return m
		case strings.HasPrefix(value, `\"`):
			return slices.Concat(parts[1], []byte(`\"`+removed+`\"`))
		case value[0] == '"' || value[0] == '\'':
			return slices.Concat(parts[1], []byte(value[:1]+removed+value[:1]))
		}
		return slices.Concat(parts[1], []byte(removed))
	})
}

// plain is a value that is no secret whatever its name says, as of automountServiceAccountToken: false.
func plain(value string) bool {
	switch strings.Trim(value, `"'\`) {
	case "", "true", "false", "null", "{", "[", removed, "Bearer", "Basic", "bearer", "basic":
		return true
	}
	return false
}
