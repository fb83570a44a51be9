package kith

import (
	"context"
	"errors"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/multiaddr"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

// WebSocket is empty here: a page in a browser serves nothing.
type WebSocket struct{}

// transports are all ways in which a node in a browser connects.
type transports struct {
	all      []host.Transport
	announce func([]multiaddr.Addr) []multiaddr.Addr
	autoTLS  interface{ Run(context.Context) }
	moved    func(context.Context, func(peer.ID, multiaddr.Addr) []multiaddr.Addr) error
	close    func() error
}

func newTransports(_ peer.PrivateKey, _ Config, upgrading upgrade.Config, _ func() []multiaddr.Addr) (t transports, err error) {
	upgrader, err := upgrade.New(upgrading)
	if err != nil {
		return t, err
	}
	overWebSocket, err := websocket.New(websocket.Config{Upgrader: upgrader})
	t.all = []host.Transport{overWebSocket}
	t.close = func() error { return nil }
	return t, err
}

// listen does nothing by default: a page cannot listen.
func listen(_ *host.Host, cfg Config) error {
	if len(cfg.Listen) > 0 {
		return errors.New("a page in a browser cannot listen: leave Config.Listen empty")
	}
	return nil
}
