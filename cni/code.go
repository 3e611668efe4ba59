package cni

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Codes of errors (CNI specification 1.1.0, section 5). Those from 100 on are our own.
const (
	codeUnsupported = types.ErrUnsupportedField            // 2
	codeEnvironment = types.ErrInvalidEnvironmentVariables // 4
	codeIO          = types.ErrIOFailure                   // 5
	codeDecode      = types.ErrDecodingFailure             // 6
	codeConfig      = types.ErrInvalidNetworkConfig        // 7
	codeNetns       = types.ErrInvalidNetNS                // 8
	codeTryAgain    = types.ErrTryAgainLater               // 11: the daemon is starting or down
	codeUnavailable = types.ErrPluginNotAvailable          // 50: STATUS, the daemon is up but cannot add
	codeLimited     = types.ErrLimitedConnectivity         // 51: STATUS, the daemon is down
	codeInternal    = types.ErrInternal                    // 999

	codeExhausted uint = 100 // no pod address is free
	codeAddress   uint = 101 // an address that was asked for cannot be given
	codeExists    uint = 102 // there is an attachment of that container and interface
	codeInterface uint = 103 // there is an interface of that name in the pod
	codeUnlike    uint = 104 // CHECK: the attachment is not what it should be
	codeHostPort  uint = 105 // a port of the node that was asked for cannot be given
)

// fail returns an error with a code, of which details say what was wrong and what to do.
func fail(code uint, msg string, details any) *types.Error {
	return types.NewError(code, msg, fmt.Sprint(details))
}

// rest returns what an error says behind the sentinel that it begins with.
func rest(err, sentinel error) string {
	return strings.TrimPrefix(err.Error(), sentinel.Error()+": ")
}

// coded returns err as an error with a code: its own if it has one, else the given one.
func coded(err error, code uint, msg string) *types.Error {
	var e *types.Error
	if errors.As(err, &e) {
		return e
	}
	return fail(code, msg, err)
}
