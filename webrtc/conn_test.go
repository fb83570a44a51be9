package webrtc

import "testing"

// Messages that never end are counted by their pieces, and only while they have not ended.
func TestPiecesAreBounded(t *testing.T) {
	const first, middle, last = 2, 0, 1
	piece := func(id byte, flags byte) []byte {
		return []byte{chunkData, flags, 0, 17, 0, 0, 0, 0, 0, id, 0, 0, 0, 0, 0, 53, 'x', 0, 0, 0}[:17]
	}
	var f fragments
	for range 3 {
		for i := range maxPieces {
			if f.tooMany(piece(byte(i%4), middle)) {
				t.Fatalf("refused after %d", i)
			}
		}
		for id := range byte(4) {
			f.tooMany(piece(id, last))
		}
		if f.all != 0 || len(f.of) != 0 {
			t.Fatalf("%d pieces of %d messages are left", f.all, len(f.of))
		}
	}
	for range maxPieces {
		f.tooMany(piece(1, first))
	}
	if !f.tooMany(piece(2, first)) {
		t.Error("one piece too many was taken")
	}
	if f.tooMany([]byte{chunkSack, 0, 0, 16, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}) {
		t.Error("what is no data was counted")
	}
}
