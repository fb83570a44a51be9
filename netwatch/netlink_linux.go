package netwatch

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Groups of rtnetlink. https://man7.org/linux/man-pages/man7/rtnetlink.7.html
const groups = 1<<(syscall.RTNLGRP_LINK-1) |
	1<<(syscall.RTNLGRP_IPV4_IFADDR-1) | 1<<(syscall.RTNLGRP_IPV6_IFADDR-1) |
	1<<(syscall.RTNLGRP_IPV4_ROUTE-1) | 1<<(syscall.RTNLGRP_IPV6_ROUTE-1)

const (
	// noticeBuffer is what one read takes: the kernel's messages are at most a page or two.
	noticeBuffer = 16 << 10
	// maxRoutes is how many routes are looked at. A machine with more is a router of
	// the internet, whose routes change all the time and which does not roam.
	maxRoutes = 1024

	iffLowerUp = 1 << 16 // the link has a carrier; syscall lacks it
	rtmCloned  = 0x200   // the route was made for one destination; syscall lacks it
	tentative  = syscall.IFA_F_TENTATIVE
)

// listen has the kernel tell of changes. A notice is true if the change may have been
// undone until it is looked.
func listen() (notices <-chan bool, look func() string, stop func()) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, interfaces, func() {}
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groups}); err != nil {
		syscall.Close(fd) // Android does not let programs do this
		return nil, interfaces, func() {}
	}
	file := os.NewFile(uintptr(fd), "rtnetlink")
	found := make(chan bool)
	done := make(chan struct{})
	go func() {
		defer close(found)
		buf := make([]byte, noticeBuffer)
		links := make(map[uint32]uint32)
		for {
			n, err := file.Read(buf)
			forced := false
			switch {
			case errors.Is(err, syscall.ENOBUFS): // some were lost
			case err != nil:
				return
			default:
				forced = carrier(buf[:n], links)
			}
			select {
			case found <- forced:
			case <-done:
				return
			}
		}
	}()
	return found, kernel, func() {
		close(done)
		file.Close()
		for range found { // the reader has ended
		}
	}
}

// carrier tells whether one of the messages is of a link that lost or got its
// carrier: even with the same address it may lead elsewhere now. links are the
// flags of those that are there.
func carrier(b []byte, links map[uint32]uint32) (changed bool) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if len(m.Data) < syscall.SizeofIfInfomsg {
			continue
		}
		index := binary.NativeEndian.Uint32(m.Data[4:])
		if m.Header.Type == syscall.RTM_DELLINK && m.Data[0] == syscall.AF_UNSPEC { // not one that only left a bridge
			delete(links, index)
		}
		if m.Header.Type != syscall.RTM_NEWLINK {
			continue
		}
		flags := binary.NativeEndian.Uint32(m.Data[8:]) & (syscall.IFF_UP | iffLowerUp)
		if known, ok := links[index]; ok && known != flags {
			changed = true
		}
		links[index] = flags
	}
	return changed
}

// kernel tells the addresses, links and routes.
func kernel() string {
	var seen []string
	for _, kind := range []int{syscall.RTM_GETLINK, syscall.RTM_GETADDR, syscall.RTM_GETROUTE} {
		rib, err := syscall.NetlinkRIB(kind, syscall.AF_UNSPEC)
		if err != nil {
			return interfaces()
		}
		messages, err := syscall.ParseNetlinkMessage(rib)
		if err != nil {
			return interfaces()
		}
		if kind == syscall.RTM_GETROUTE && len(messages) > maxRoutes {
			continue
		}
		for i := range messages {
			if text := telling(&messages[i]); text != "" {
				seen = append(seen, text)
			}
		}
	}
	slices.Sort(seen)
	return strings.Join(seen, "\n")
}

// telling gives what of a message tells where the machine is; "": nothing.
func telling(m *syscall.NetlinkMessage) string {
	b := m.Data
	var head, attrs []byte
	var kept []uint16
	switch {
	case m.Header.Type == syscall.RTM_NEWLINK && len(b) >= syscall.SizeofIfInfomsg:
		flags := binary.NativeEndian.Uint32(b[8:]) & (syscall.IFF_UP | iffLowerUp)
		return "link " + hex.EncodeToString(binary.NativeEndian.AppendUint32(slices.Clone(b[4:8]), flags))
	case m.Header.Type == syscall.RTM_NEWADDR && len(b) >= syscall.SizeofIfAddrmsg:
		if b[2]&tentative != 0 {
			return "" // not in use yet
		}
		head = append(slices.Clone(b[:2]), b[4:8]...) // family, prefix length; interface
		attrs = b[syscall.SizeofIfAddrmsg:]
		kept = []uint16{syscall.IFA_ADDRESS, syscall.IFA_LOCAL}
	case m.Header.Type == syscall.RTM_NEWROUTE && len(b) >= syscall.SizeofRtMsg:
		if flags := binary.NativeEndian.Uint32(b[8:]); flags&rtmCloned != 0 || b[4] == syscall.RT_TABLE_LOCAL {
			return "" // the addresses tell that
		}
		head = append(slices.Clone(b[:2]), b[4], b[7]) // family, prefix length, table, type
		attrs = b[syscall.SizeofRtMsg:]
		kept = []uint16{syscall.RTA_DST, syscall.RTA_GATEWAY, syscall.RTA_OIF, syscall.RTA_PRIORITY}
	default:
		return ""
	}
	// Not syscall.ParseNetlinkRouteAttr, which panics where the last one is not padded.
	for len(attrs) >= syscall.SizeofRtAttr {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if size < syscall.SizeofRtAttr || size > len(attrs) {
			return ""
		}
		if slices.Contains(kept, kind) {
			head = binary.NativeEndian.AppendUint16(head, kind)
			head = append(head, attrs[syscall.SizeofRtAttr:size]...)
		}
		padded := (size + syscall.RTA_ALIGNTO - 1) &^ (syscall.RTA_ALIGNTO - 1)
		attrs = attrs[min(padded, len(attrs)):]
	}
	return hex.EncodeToString(head)
}
