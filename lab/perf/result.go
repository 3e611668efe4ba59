package perf

import "time"

// Result is what a test measured within Elapsed, or in one of its intervals.
type Result struct {
	Elapsed time.Duration `json:"elapsedNs"`
	// Bytes of payload that the server received, of TCP and UDP; that the client received, of a download.
	Bytes int64 `json:"bytes"`
	// Packets are datagrams that the server received; Sent are those that the client had sent for that, lost ones included.
	Packets int64 `json:"packets"`
	Sent    int64 `json:"sent"`
	// Requests had their response, Unanswered had none in time: those of latency, and connections.
	Requests   int64 `json:"requests"`
	Unanswered int64 `json:"unanswered"`
	// P50, P90 and P99 are the times that such shares of the requests did not exceed, at most 1/64 too much; Max is the longest.
	P50 time.Duration `json:"p50Ns"`
	P90 time.Duration `json:"p90Ns"`
	P99 time.Duration `json:"p99Ns"`
	Max time.Duration `json:"maxNs"`
	// ClientCPU and ServerCPU are the processor times, user and system, that the two processes used.
	ClientCPU time.Duration `json:"clientCpuNs"`
	ServerCPU time.Duration `json:"serverCpuNs"`
}

// Gbits returns the rate of payload in Gbit/s.
func (r Result) Gbits() float64 { return 8 * r.perSecond(r.Bytes) / 1e9 }

// PacketRate returns how many datagrams the server received in a second.
func (r Result) PacketRate() float64 { return r.perSecond(r.Packets) }

// SendRate returns how many datagrams the client sent in a second.
func (r Result) SendRate() float64 { return r.perSecond(r.Sent) }

// RequestRate returns how many requests had a response in a second; of connections, how many of them were made.
func (r Result) RequestRate() float64 { return r.perSecond(r.Requests) }

func (r Result) perSecond(n int64) float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(n) / r.Elapsed.Seconds()
}

// Loss returns the share of datagrams, or of requests, that were lost: 0 to 1.
func (r Result) Loss() float64 {
	lost, all := r.Sent-r.Packets, r.Sent
	if requests := r.Requests + r.Unanswered; requests > 0 {
		lost, all = r.Unanswered, requests
	}
	if all <= 0 {
		return 0
	}
	return max(0, float64(lost)/float64(all)) // one that was overtaken at the begin may arrive within
}

// addTimes adds what the client measured.
func (r *Result) addTimes(h *Histogram, unanswered int64) {
	r.Requests, r.Unanswered = h.Count(), unanswered
	r.P50, r.P90, r.P99, r.Max = h.Quantile(0.5), h.Quantile(0.9), h.Quantile(0.99), h.Max()
}
