package hostile

import (
	"net"
)

// A stage is a point in the set-up of a connection, or of its first stream, at
// which an attacker falls silent.
type stage struct {
	name string

	// reach brings a connection to the stage; an error says that the host ended it before.
	reach func(a *attacker, conn net.Conn) error

	// drip is what is sent from then on, a byte every few seconds; most send nothing.
	drip []byte

	// proven tells that the attacker runs a whole handshake, which costs it as much
	// as the host.
	proven bool

	// known tells that the host knows who the attacker is, and has given it one of
	// the places of connections, which are counted by address.
	known bool
}

// stages are all of them, in order.
func stages() ([]stage, error) {
	hello, err := clientHello()
	if err != nil {
		return nil, err
	}
	say := func(parts ...[]byte) func(*attacker, net.Conn) error {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return func(_ *attacker, conn net.Conn) error {
			_, err := conn.Write(all)
			return err
		}
	}
	header := propose(noiseID)[:20]
	return []stage{
		{name: "accepted", reach: say()},
		{name: "half a header", reach: say(header[:9])},
		{name: "a byte now and then", reach: say(header[:1]), drip: propose(noiseID)[1:]},
		{name: "header", reach: say(header)},
		{name: "noise agreed", reach: func(_ *attacker, conn net.Conn) error { return agree(conn, noiseID) }},
		{name: "half a noise message 1", reach: say(propose(noiseID), message(32, random(16)))},
		{name: "noise message 1", reach: say(propose(noiseID), message(32, random(32)))},
		{name: "noise message 2 read", reach: func(_ *attacker, conn net.Conn) error {
			if err := agree(conn, noiseID); err != nil {
				return err
			}
			if _, err := conn.Write(message(32, random(32))); err != nil {
				return err
			}
			_, err := readMessage(conn)
			return err
		}},
		{name: "half a TLS hello", reach: say(propose(tlsID), hello[:len(hello)/2])},
		{name: "TLS hello", reach: say(propose(tlsID), hello)},
		{name: "secured, no muxer", proven: true, reach: func(a *attacker, conn net.Conn) error {
			_, err := a.secure(conn)
			return err
		}},
		{name: "half a muxer", proven: true, reach: func(a *attacker, conn net.Conn) error {
			c, err := a.secure(conn)
			if err != nil {
				return err
			}
			_, err = c.Write(propose(yamuxID)[:25])
			return err
		}},

		{name: "muxed", proven: true, known: true, reach: func(a *attacker, conn net.Conn) error {
			_, err := a.session(conn)
			return err
		}},
		{name: "stream without a proposal", proven: true, known: true, reach: func(a *attacker, conn net.Conn) error {
			s, err := a.session(conn)
			if err != nil {
				return err
			}
			return s.send(frame{typ: typeWindow, flags: syn, id: s.id()})
		}},
		{name: "stream with half a proposal", proven: true, known: true, reach: func(a *attacker, conn net.Conn) error {
			s, err := a.session(conn)
			if err != nil {
				return err
			}
			return s.send(dataFrame(syn, s.id(), propose("/echo/1")[:23]))
		}},
	}, nil
}
