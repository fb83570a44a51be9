//go:build js || wasip1

package mdns

import "errors"

// listen fails: a page or a sandbox has no UDP sockets to join a group with.
func listen(Interface, []byte) ([]transceiver, error) {
	return nil, errors.New("this system has no multicast sockets: turn mDNS off")
}
