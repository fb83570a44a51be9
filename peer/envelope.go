package peer

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/kith-p2p/kith/internal/wire"
)

// MaxEnvelopeLen is the longest envelope that is opened or sealed, in bytes.
// go-libp2p and js-libp2p read identify messages of up to 8 KiB, so a longer
// record reaches nobody.
const MaxEnvelopeLen = 8 << 10

// The fields of an envelope.
// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#wire-format
const (
	envelopeKey         = 1
	envelopePayloadType = 2
	envelopePayload     = 3
	envelopeSignature   = 5
)

var errPayloadType = errors.New("other payload type")

// OpenEnvelope decodes a signed envelope. It checks the payload type, then the
// signature in the given domain, then that the payload is about its signer, and
// only then returns the signer and the payload, a part of data.
//
// The function subject decodes the payload and tells whom it is about. It runs
// once the signature has been verified, but it must not act on what it reads:
// whether the payload is about its signer is known only when OpenEnvelope
// returns. A payload that another peer may sign about someone has no place here.
//
// Spec: https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md
func OpenEnvelope(data []byte, domain string, payloadType []byte, subject func(payload []byte) (ID, error)) (signer ID, payload []byte, err error) {
	signer, payload, err = openEnvelope(data, domain, payloadType, subject)
	if err != nil {
		return ID{}, nil, fmt.Errorf("peer: envelope: %w", err)
	}
	return signer, payload, nil
}

// SealEnvelope signs payload in the given domain and returns the envelope. The
// domain keeps signatures made for one purpose from being used for another, so
// it must not be empty. The payload has to be about the owner of key for
// OpenEnvelope to accept it.
func SealEnvelope(key PrivateKey, domain string, payloadType, payload []byte) ([]byte, error) {
	if domain == "" {
		return nil, errors.New("peer: envelope: the domain is empty: give each purpose one of its own")
	}
	sig, err := key.Sign(signedBytes(domain, payloadType, payload))
	if err != nil {
		return nil, err
	}
	b := wire.AppendBytesField(nil, envelopeKey, key.Public().Marshal())
	if len(payloadType) > 0 { // proto3 leaves out what is empty
		b = wire.AppendBytesField(b, envelopePayloadType, payloadType)
	}
	if len(payload) > 0 {
		b = wire.AppendBytesField(b, envelopePayload, payload)
	}
	b = wire.AppendBytesField(b, envelopeSignature, sig)
	if len(b) > MaxEnvelopeLen {
		return nil, fmt.Errorf("peer: envelope: %d bytes are over the limit of %d: make the payload shorter", len(b), MaxEnvelopeLen)
	}
	return b, nil
}

func openEnvelope(data []byte, domain string, payloadType []byte, subject func([]byte) (ID, error)) (ID, []byte, error) {
	if domain == "" {
		return ID{}, nil, errors.New("the domain is empty")
	}
	if len(data) > MaxEnvelopeLen {
		return ID{}, nil, fmt.Errorf("%d bytes are over the limit of %d", len(data), MaxEnvelopeLen)
	}
	var fields [envelopeSignature + 1][]byte
	err := wire.Fields(data, func(f wire.Field) error {
		switch f.Num {
		case envelopeKey, envelopePayloadType, envelopePayload, envelopeSignature:
			return once(&fields[f.Num], f)
		}
		return nil // what later versions may add; it is not signed
	})
	if err != nil {
		return ID{}, nil, err
	}
	if !bytes.Equal(fields[envelopePayloadType], payloadType) {
		return ID{}, nil, fmt.Errorf("%w: % x instead of % x", errPayloadType, clip(fields[envelopePayloadType]), payloadType)
	}
	key, err := unmarshalPublicKey(fields[envelopeKey])
	if err != nil {
		return ID{}, nil, err
	}
	signer, payload := key.ID(), fields[envelopePayload]
	if !key.Verify(signedBytes(domain, payloadType, payload), fields[envelopeSignature]) {
		return ID{}, nil, fmt.Errorf("the signature is not that of %v, or not for %q", signer, domain)
	}
	about, err := subject(payload)
	if err != nil {
		return ID{}, nil, err
	}
	if about != signer {
		return ID{}, nil, fmt.Errorf("%v has signed a payload about %v", signer, about)
	}
	return signer, payload, nil
}

// signedBytes is what an envelope's signature is made over.
// https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#signature-production--verification
func signedBytes(domain string, payloadType, payload []byte) []byte {
	size := 3*wire.MaxVarintLen + len(domain) + len(payloadType) + len(payload)
	b := wire.AppendUvarint(make([]byte, 0, size), uint64(len(domain)))
	b = append(b, domain...)
	b = wire.AppendFrame(b, payloadType)
	return wire.AppendFrame(b, payload)
}

// once stores the bytes of a field that may come only once: where it comes
// twice, implementations differ in which one they read.
func once(to *[]byte, f wire.Field) error {
	if err := f.Want(wire.TypeBytes); err != nil {
		return err
	}
	if *to != nil {
		return fmt.Errorf("field %d comes twice", f.Num)
	}
	*to = f.Bytes
	return nil
}
