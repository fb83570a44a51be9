package host

// A Source tells who told of an address, and with that how far it may lead us: see
// safe.go. A larger one is trusted more.
type Source uint8

const (
	SourceStranger Source = iota // anybody else: DHT, peer exchange, rendezvous
	SourcePeer                   // the peer itself, on a connection that proved who it is
	SourcePresent                // the same, of the private or loopback IP that its connection came from
	SourceLocal                  // the local network: mDNS
	SourceUser                   // the program or its user: dialed wherever it points
)

var sourceNames = [...]string{SourceStranger: "stranger", SourcePeer: "peer", SourcePresent: "present peer", SourceLocal: "local", SourceUser: "user"}

func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return "unknown"
}
