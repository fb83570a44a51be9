package peer

import "fmt"

// A MismatchError tells that another peer has answered than the one that was wanted. The
// secure channels return it, and so what dials: an address can be somebody else's by now.
type MismatchError struct {
	Want, Got ID // Got is who it claims to be, and with Noise who it has proved to be
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("peer: wanted %s, and %s has answered", e.Want, e.Got)
}
