package rpc_test

import (
	"context"
	"fmt"
	"log"

	"github.com/kith-p2p/kith/host"
	"github.com/kith-p2p/kith/peer"
	"github.com/kith-p2p/kith/rpc"
)

// A method is described once, and both sides use the description.
func ExampleMethod() {
	type Order struct{ Item string }
	type Receipt struct{ Number int }
	order := rpc.Method[Order, Receipt]{Protocol: "/shop/order/1"}

	serve := func(h *host.Host) {
		order.Serve(h, func(ctx context.Context, from peer.ID, o Order) (Receipt, error) {
			if o.Item == "" {
				return Receipt{}, rpc.Errorf(rpc.InvalidArgument, "an order names its item")
			}
			return Receipt{Number: 1}, nil
		})
	}
	call := func(ctx context.Context, h *host.Host, shop peer.ID) {
		receipt, err := order.Call(ctx, h, shop, Order{Item: "tea"})
		switch rpc.CodeOf(err) {
		case rpc.OK:
			fmt.Println("ordered:", receipt.Number)
		case rpc.InvalidArgument:
			log.Print("our mistake: ", err)
		default:
			log.Print("perhaps later: ", err)
		}
	}
	_, _ = serve, call
}

// Many messages either way.
func ExampleMethod_ServeStream() {
	chat := rpc.Method[string, string]{Protocol: "/chat/1"}
	serve := func(h *host.Host) {
		chat.ServeStream(h, func(ctx context.Context, s *rpc.ServerStream[string, string]) error {
			for {
				line, err := s.Recv()
				if err != nil {
					return nil // the last one, or the caller is gone
				}
				if err := s.Send("you said " + line); err != nil {
					return err
				}
			}
		})
	}
	_ = serve
}
