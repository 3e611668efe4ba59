package proxy

import "errors"

// listenTCP opens a listener of TCP.
func (p *Proxy) listenTCP(Listener) (server, error) { return nil, errors.ErrUnsupported }
