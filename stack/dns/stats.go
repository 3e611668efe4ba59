package dns

import "sync/atomic"

// stats are counters that any goroutine adds to.
type stats struct {
	answers [len(countedTypes) + 1][len(countedCodes) + 1]atomic.Uint64
}

// countedTypes and countedCodes are counted by themselves, all others together.
var (
	countedTypes = [...]struct {
		number uint16
		name   string
	}{
		{typeA, "A"}, {typeAAAA, "AAAA"}, {typeSRV, "SRV"}, {typePTR, "PTR"}, {typeCNAME, "CNAME"}, {typeTXT, "TXT"},
		{typeNS, "NS"}, {typeSOA, "SOA"}, {15, "MX"}, {64, "SVCB"}, {65, "HTTPS"}, {typeANY, "ANY"},
	}
	countedCodes = [...]struct {
		code RCode
		name string
	}{
		{NoError, "NOERROR"}, {NXDomain, "NXDOMAIN"}, {ServFail, "SERVFAIL"}, {Refused, "REFUSED"}, {FormErr, "FORMERR"}, {NotImp, "NOTIMP"},
	}
)

func (s *stats) count(qtype uint16, code RCode) {
	t, c := 0, 0
	for t < len(countedTypes) && countedTypes[t].number != qtype {
		t++
	}
	for c < len(countedCodes) && countedCodes[c].code != code {
		c++
	}
	s.answers[t][c].Add(1)
}

// Stats are a server's counters since its start.
type Stats struct {
	// Answers counts answers by the question's type and the response code, each by name, or "other".
	Answers map[string]map[string]uint64 `json:"answers"`
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	all := Stats{Answers: map[string]map[string]uint64{}}
	for t := range s.stats.answers {
		for c := range s.stats.answers[t] {
			n := s.stats.answers[t][c].Load()
			if n == 0 {
				continue
			}
			typeName, codeName := "other", "other"
			if t < len(countedTypes) {
				typeName = countedTypes[t].name
			}
			if c < len(countedCodes) {
				codeName = countedCodes[c].name
			}
			if all.Answers[typeName] == nil {
				all.Answers[typeName] = map[string]uint64{}
			}
			all.Answers[typeName][codeName] = n
		}
	}
	return all
}
