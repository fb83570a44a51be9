package host

// A Source tells on whose word an address is known.
type Source uint8

const (
	// SourceUser is the program or its user: such addresses are dialed wherever they lead.
	SourceUser Source = iota
	// SourceLocal is a discovery on the local network, such as mDNS.
	SourceLocal
	// SourcePeer is the peer itself, over a connection on which it proved who it is.
	SourcePeer
	// SourceStranger is anybody else.
	SourceStranger
)
