package proxy

import "errors"

// listenUDP opens a listener of UDP.
func (p *Proxy) listenUDP(Listener) (server, error) { return nil, errors.ErrUnsupported }
