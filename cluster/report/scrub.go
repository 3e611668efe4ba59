package report

import (
	"bytes"
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
	// authorization is what stands behind its name, whatever the scheme (RFC 9110, section 11.6.2).
	authorization = regexp.MustCompile(`(?i)\b(authorization\\?["']?[ \t]*[:=][ \t]*\\?["']?)[^\r\n"'\\]+`)
	userInfo      = regexp.MustCompile(`://[^/\s@"']+@`)                // RFC 3986
	bootstrap     = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`) // kubeadm's join tokens
	// named is a value after a name that says what it is, as in YAML, JSON, a query or key=value.
	named = regexp.MustCompile(`(?i)([\w.-]*(?:` + secretName + `)[\w.-]*\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|\[removed\]|[^\s"',;&}\]]+)`)
	// flag is the argument after a flag of such a name, in a command or as the next one of a list.
	flag = regexp.MustCompile(`(?i)(--[\w.-]*(?:` + secretName + `)[\w.-]*["']?(?:[ \t]+|\s*,\s*|\s+-[ \t]+)["']?)(?:\[removed\]|[^\s"',\]-][^\s"',\]]*)`)
	// block is the first line of a YAML block scalar of such a name.
	block = regexp.MustCompile(`(?i)^([ \t]*(?:- +)*)["']?[\w.-]*(?:` + secretName + `)[\w.-]*["']?[ \t]*:[ \t]*[|>][-+0-9]*[ \t]*\r?$`)
)

// secretName is a part of the names of secrets.
const secretName = `passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential|key-data`

// scrub removes what looks like a secret.
func scrub(b []byte) []byte {
	b = privateKey.ReplaceAll(b, []byte(removed))
	b = authHeader.ReplaceAll(b, []byte("${1}${2}"+removed))
	b = jwt.ReplaceAll(b, []byte(removed))
	b = authorization.ReplaceAll(b, []byte("${1}"+removed))
	b = userInfo.ReplaceAll(b, []byte("://"+removed+"@"))
	b = bootstrap.ReplaceAll(b, []byte(removed))
	b = flag.ReplaceAll(b, []byte("${1}"+removed))
	b = scrubBlocks(b)
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

// scrubBlocks removes the lines of block scalars whose name says that they are secrets: those that are further in than it.
func scrubBlocks(b []byte) []byte {
	var out [][]byte
	within := -1 // how far in the name is
	for _, line := range bytes.Split(b, []byte("\n")) {
		in := len(line) - len(bytes.TrimLeft(line, " \t"))
		blank := in == len(line)
		if within >= 0 && (blank || in > within) {
			continue
		}
		out = append(out, line)
		within = -1
		if m := block.FindSubmatch(line); m != nil {
			within = len(m[1])
			out = append(out, slices.Concat(bytes.Repeat([]byte(" "), within+2), []byte(removed)))
		}
	}
	return bytes.Join(out, []byte("\n"))
}

// plain is a value that is no secret whatever its name says, as of automountServiceAccountToken: false.
func plain(value string) bool {
	switch strings.Trim(value, `"'\`) {
	case "", "true", "false", "null", "{", "[", "|", "|-", "|+", ">", ">-", ">+", removed:
		return true
	}
	return false
}
