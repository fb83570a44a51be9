package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith/peer"
)

func newID(a *app) *cobra.Command {
	var dir, keyType string
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Show the identity of this machine's peer, and make it if there is none",
		Long: `Show the identity of this machine's peer: its ID, and where its private key is kept.
If there is none it is made. Give the same --dir to other commands to use it.`,
		Example: `  kith id
  kith id --dir ./alice --type secp256k1 --json`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			t, err := peer.ParseKeyType(keyType)
			if err != nil {
				return &usageError{err}
			}
			path := filepath.Join(dir, "identity.key")
			key, err := peer.LoadOrCreateKey(path, t)
			if err != nil {
				return err
			}
			id := key.ID()
			a.say("id", fields{"peer": id, "cid": id.CID(), "type": key.Type().String(), "file": path},
				"peer ID  %s\nas CID   %s\nkey      %s, in %s", id, id.CID(), key.Type(), path)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir(), "directory that keeps the identity")
	cmd.Flags().StringVar(&keyType, "type", "ed25519", "key type, if the key is made: ed25519, secp256k1, ecdsa or rsa")
	return cmd
}
