package upgrade

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/kith-p2p/kith/multistream"
	"github.com/kith-p2p/kith/pnet"
)

// ErrOtherNetwork tells that the remote does not speak under our pre-shared key.
var ErrOtherNetwork = errors.New("upgrade: the remote seems to be in another private network, or in none: compare the fingerprints of the pre-shared keys")

// greeting is what every remote says first.
const greeting = "\x13" + multistream.ProtocolID + "\n"

// protect puts conn into our private network, if there is one.
func (u *Upgrader) protect(conn net.Conn, dialed bool) net.Conn {
	if u.psk == nil {
		return conn
	}
	return &private{Conn: pnet.Protect(conn, *u.psk), dialed: dialed}
}

// private is a connection under a pre-shared key. Under the wrong one everything reads
// as noise, in which multistream-select could wait for the end of a long message. So
// the first bytes are looked at here, as they pass.
type private struct {
	net.Conn
	dialed bool
	heard  int // of greeting
}

func (c *private) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.heard == len(greeting) {
		return n, err
	}
	for _, b := range p[:min(n, len(greeting)-c.heard)] {
		if b != greeting[c.heard] {
			return 0, ErrOtherNetwork
		}
		c.heard++
	}
	// A listener that cannot read us hangs up; a dialer that says nothing is anything.
	if n == 0 && err != nil && c.dialed && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		return 0, fmt.Errorf("%w: %w", ErrOtherNetwork, err)
	}
	return n, err
}
