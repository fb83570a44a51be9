package netwatch

import (
	"encoding/binary"
	"syscall"
	"testing"
)

// link is the notice of a link with flags.
func link(flags uint32) []byte {
	b := make([]byte, syscall.SizeofNlMsghdr+syscall.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], syscall.RTM_NEWLINK)
	info := b[syscall.SizeofNlMsghdr:]
	binary.NativeEndian.PutUint32(info[4:], 7)
	binary.NativeEndian.PutUint32(info[8:], flags)
	return b
}

func TestCarrier(t *testing.T) {
	links := make(map[uint32]uint32)
	for i, c := range []struct {
		flags uint32
		want  bool
	}{
		{syscall.IFF_UP | iffLowerUp, false}, // not known before
		{syscall.IFF_UP | iffLowerUp | syscall.IFF_PROMISC, false},
		{syscall.IFF_UP, true},
		{syscall.IFF_UP | iffLowerUp, true},
		{0, true},
	} {
		if got := carrier(link(c.flags), links); got != c.want {
			t.Errorf("notice %d: %v", i, got)
		}
	}
}

// Links that are gone are forgotten, and those that only leave a bridge are not.
func TestLinksGo(t *testing.T) {
	links := make(map[uint32]uint32)
	carrier(link(syscall.IFF_UP), links)
	gone := link(0)
	binary.NativeEndian.PutUint16(gone[4:], syscall.RTM_DELLINK)
	gone[syscall.SizeofNlMsghdr] = syscall.AF_BRIDGE
	if carrier(gone, links) || len(links) != 1 {
		t.Errorf("after it has left a bridge %d links are known", len(links))
	}
	gone[syscall.SizeofNlMsghdr] = syscall.AF_UNSPEC
	if carrier(gone, links) || len(links) != 0 {
		t.Errorf("after its end %d links are known", len(links))
	}
}

func FuzzNotice(f *testing.F) {
	f.Add(link(syscall.IFF_UP))
	for _, kind := range []int{syscall.RTM_GETLINK, syscall.RTM_GETADDR, syscall.RTM_GETROUTE} {
		if rib, err := syscall.NetlinkRIB(kind, syscall.AF_UNSPEC); err == nil {
			f.Add(rib)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		carrier(b, make(map[uint32]uint32))
		messages, err := syscall.ParseNetlinkMessage(b)
		if err != nil {
			return
		}
		for i := range messages {
			telling(&messages[i])
		}
	})
}
