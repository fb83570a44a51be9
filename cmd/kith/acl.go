package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kith-p2p/kith"
	"github.com/kith-p2p/kith/acl"
)

func newACL(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Show and change who may connect with this machine's peer",
		Long: `Show and change who may connect with this machine's peer: a list of peers, addresses
and networks that are blocked or allowed. It is the file acl.txt in --dir; a node that
runs with the same --dir reads changes within seconds, and ends connections that are
not allowed any more.

Whoever or whatever is not in the list may connect. Of several networks the smallest
that an address is in decides, and a peer's own entry before that of everyone. A peer
needs both, its ID and its address, not to be blocked.

An allowed network may also be dialed when strangers name its addresses although it is
a private one that this machine has no interface in.

With --json each entry is one event: entry, with subject, verdict, and perhaps until and note.`,
		Example: `  kith acl
  kith acl block 203.0.113.0/24 --for 24h --note "floods us"
  kith acl allow 203.0.113.7
  kith acl remove 203.0.113.0/24
  kith acl block everyone && kith acl allow 12D3KooW…     nobody but this peer`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("there is no command %q: see %s --help", args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			l, err := acl.Open(aclFile(dir))
			if err != nil {
				return err
			}
			entries := l.Entries()
			for _, e := range entries {
				a.sayEntry("entry", e)
			}
			if len(entries) == 0 && !a.json {
				a.say("", nil, "everyone may connect: the list %s is empty", aclFile(dir))
			}
			return nil
		},
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", defaultDir(), "directory that keeps the list, as given to kith node")
	cmd.AddCommand(newACLSet(a, &dir, acl.Block), newACLSet(a, &dir, acl.Allow), newACLRemove(a, &dir))
	return cmd
}

func newACLSet(a *app, dir *string, verdict acl.Verdict) *cobra.Command {
	var period time.Duration
	var note string
	cmd := &cobra.Command{
		Use:   verdict.String() + " SUBJECT...",
		Short: map[acl.Verdict]string{acl.Block: "Keep peers or networks away", acl.Allow: "Let peers or networks in although others like them are blocked"}[verdict],
		Long: map[acl.Verdict]string{
			acl.Block: `Keep peers or networks away: no connection with them is made or taken in.`,
			acl.Allow: `Let peers or networks in although a larger network, or everyone, is blocked. A private
network that is allowed may be dialed when strangers name its addresses.`,
		}[verdict] + `

A subject is a peer ID, an IP address, a network such as 192.0.2.0/24, or the word
everyone, which stands for all peers without an entry of their own. What the list said
of it before is forgotten.`,
		Example: map[acl.Verdict]string{
			acl.Block: `  kith acl block 12D3KooW… --note "spam"
  kith acl block 203.0.113.0/24 2001:db8:7::/48 --for 1h30m
  kith acl block everyone`,
			acl.Allow: `  kith acl allow 12D3KooW…
  kith acl allow 10.244.0.0/16 --note "our cluster"
  kith acl allow 203.0.113.7 --for 1h`,
		}[verdict],
		Args: someSubjects,
		RunE: func(_ *cobra.Command, args []string) error {
			subjects, err := parseSubjects(args)
			if err != nil {
				return err
			}
			if period < 0 {
				return &usageError{errors.New("--for is how long the entry holds: more than nothing")}
			}
			var until time.Time
			if period > 0 {
				until = time.Now().Add(period)
			}
			l, err := acl.Open(aclFile(*dir))
			if err != nil {
				return err
			}
			entries := make([]acl.Entry, len(subjects))
			for i, s := range subjects {
				entries[i] = acl.Entry{Subject: s, Verdict: verdict, Until: until, Note: note}
			}
			if err := l.Set(entries...); err != nil {
				return err
			}
			for _, e := range l.Entries() {
				for _, s := range subjects {
					if e.Subject == s {
						a.sayEntry("entry", e)
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&period, "for", 0, "how long, such as 90m or 24h; for ever if not given")
	cmd.Flags().StringVar(&note, "note", "", "why, for people")
	return cmd
}

func newACLRemove(a *app, dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "remove SUBJECT...",
		Aliases: []string{"rm"},
		Short:   "Take entries out of the list",
		Long:    `Take entries out of the list. It fails when none of the subjects has one.`,
		Example: `  kith acl remove 203.0.113.0/24
  kith acl remove everyone 12D3KooW…`,
		Args: someSubjects,
		RunE: func(_ *cobra.Command, args []string) error {
			subjects, err := parseSubjects(args)
			if err != nil {
				return err
			}
			l, err := acl.Open(aclFile(*dir))
			if err != nil {
				return err
			}
			n, err := l.Remove(subjects...)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%s has no such entry: see kith acl", aclFile(*dir))
			}
			a.say("removed", fields{"entries": n}, "%d of %d removed", n, len(subjects))
			return nil
		},
	}
}

func someSubjects(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{fmt.Errorf("%s needs a peer ID, an address, a network or everyone: see %s --help", cmd.CommandPath(), cmd.CommandPath())}
	}
	return nil
}

func parseSubjects(args []string) ([]acl.Subject, error) {
	subjects := make([]acl.Subject, len(args))
	for i, arg := range args {
		var err error
		if subjects[i], err = acl.ParseSubject(arg); err != nil {
			return nil, &usageError{err}
		}
	}
	return subjects, nil
}

func aclFile(dir string) string { return filepath.Join(dir, kith.ACLFile) }

func (a *app) sayEntry(event string, e acl.Entry) {
	f := fields{"subject": e.Subject, "verdict": e.Verdict}
	text := fmt.Sprintf("%s %s", e.Verdict, e.Subject)
	if !e.Until.IsZero() {
		f["until"] = e.Until.UTC().Format(time.RFC3339)
		text += " until " + e.Until.Local().Format(time.DateTime)
	}
	if e.Note != "" {
		f["note"] = e.Note
		text += " # " + e.Note
	}
	a.say(event, f, "%s", text)
}
