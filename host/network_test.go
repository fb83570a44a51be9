package host

import (
	"net/netip"
	"testing"
)

func TestNetworkID(t *testing.T) {
	home := attachment{"wlan0", netip.MustParsePrefix("192.0.2.0/24")}
	more := attachment{"wlan0", netip.MustParsePrefix("2001:db8::/64")}
	if networkID(nil) != 0 {
		t.Error("no network has a name")
	}
	if networkID([]attachment{home, more}) != networkID([]attachment{more, home, more}) {
		t.Error("the name depends on the order")
	}
	names := make(map[NetworkID]bool)
	for _, at := range [][]attachment{
		nil, {home}, {more}, {home, more},
		{{"wlan1", home.prefix}}, {{"wlan0", netip.MustParsePrefix("192.0.2.0/25")}},
	} {
		names[networkID(at)] = true
	}
	if len(names) != 6 {
		t.Errorf("%d names for 6 networks", len(names))
	}
}
