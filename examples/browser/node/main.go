//go:build js && wasm

// The command node is a Kith peer for a page in a browser. It is put together from the parts that it needs, so that its file is
// small; kith.Start works in a browser too, and needs 0.6 MB more. It dials over WebSocket and gives the page an object
//
//	kith.id                 its peer ID
//	await kith.connect(a)   dials an address, a text that ends in /p2p/…; resolves to {peer, addr, agent, millis}
//	await kith.ping(peer)   resolves to the milliseconds of one round trip
//	kith.disconnect(peer)
//
// whose promises are rejected with an Error.
package main

import (
	"context"
	"errors"
	"syscall/js"
	"time"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/identify"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/ping"
	"github.com/kith-p2p/kith/upgrade"
	"github.com/kith-p2p/kith/websocket"
)

// timeout bounds everything that the page asks for.
const timeout = 15 * time.Second

type node struct {
	host     *host.Host
	identify *identify.Service
}

func main() {
	n, err := start()
	if err != nil {
		panic(err) // nothing in it depends on the page
	}
	js.Global().Set("kith", map[string]any{
		"id":         n.host.ID().String(),
		"connect":    promise(n.connect),
		"ping":       promise(n.ping),
		"disconnect": promise(n.disconnect),
	})
	select {} // the page's calls run in goroutines of their own
}

func start() (*node, error) {
	key, err := peer.GenerateKey(peer.Ed25519)
	if err != nil {
		return nil, err
	}
	noise, err := upgrade.Noise(key)
	if err != nil {
		return nil, err
	}
	upgrader, err := upgrade.New(upgrade.Config{Security: []upgrade.Security{noise}})
	if err != nil {
		return nil, err
	}
	transport, err := websocket.New(websocket.Config{Upgrader: upgrader})
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Identity: key, Transports: []host.Transport{transport}})
	if err != nil {
		return nil, err
	}
	ping.Serve(h)
	return &node{h, identify.Start(h, identify.Config{AgentVersion: "kith-in-a-browser"})}, nil
}

func (n *node) connect(ctx context.Context, addr string) (any, error) {
	info, err := peer.ParseAddrInfo(addr)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	conn, err := n.host.Connect(ctx, info)
	if err != nil {
		return nil, err
	}
	took := time.Since(begin)
	about, err := n.identify.Identify(ctx, conn)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"peer": info.ID.String(), "addr": conn.RemoteAddr().String(), "agent": about.AgentVersion, "millis": millis(took),
	}, nil
}

func (n *node) ping(ctx context.Context, id string) (any, error) {
	p, err := peer.ParseID(id)
	if err != nil {
		return nil, err
	}
	rtt, err := ping.Once(ctx, n.host, p)
	return millis(rtt), err
}

func (n *node) disconnect(_ context.Context, id string) (any, error) {
	p, err := peer.ParseID(id)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, c := range n.host.ConnsTo(p) {
		errs = append(errs, c.Close())
	}
	return nil, errors.Join(errs...)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// promise makes a function of the page, of one text, that returns a promise. Nothing may block in the page's own call.
func promise(work func(ctx context.Context, arg string) (any, error)) js.Func {
	return js.FuncOf(func(_ js.Value, args []js.Value) any {
		var arg string
		if len(args) > 0 {
			arg = args[0].String()
		}
		var executor js.Func
		executor = js.FuncOf(func(_ js.Value, settle []js.Value) any {
			resolve, reject := settle[0], settle[1]
			go func() {
				defer executor.Release()
				ctx, cancel := context.WithTimeout(context.Background(), timeout)
				defer cancel()
				result, err := work(ctx, arg)
				if err != nil {
					reject.Invoke(js.Global().Get("Error").New(err.Error()))
					return
				}
				resolve.Invoke(result)
			}()
			return nil
		})
		return js.Global().Get("Promise").New(executor)
	})
}
