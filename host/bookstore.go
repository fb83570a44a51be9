package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/kith-p2p/kith/peer"
)

const (
	// bookPrefix and a peer's ID are the key of what is stored of it; bookKey is that
	// of the version of all that.
	bookPrefix  = "book/"
	bookKey     = "book"
	bookVersion = 1

	// saveAfter is how long after a change the book is saved: what comes together is
	// written together, since each writing waits for the disk.
	saveAfter = 3 * time.Second
	// savePeers is how many peers are written at once: 100 KiB or so, a few
	// milliseconds. Between two such writings is a pause of savePause, so that whoever
	// is given a million peers does not keep the disk from all others.
	savePeers = 512
	savePause = 50 * time.Millisecond
	// saveStep is how many peers are encoded while others wait for the book: 20 µs.
	saveStep = 32
	// lastSave bounds saving when the host is closed, as a part of closeTimeout.
	lastSave = 400 * time.Millisecond
	// failingAgain is how often it is said that saving fails: it is tried every saveAfter.
	failingAgain = time.Hour
)

// A bookKeeper brings the book to a store.
type bookKeeper struct {
	store  Store
	saving sync.Mutex // held by who saves

	// guarded by book.mu
	pending map[peer.ID]struct{} // what is stored of them is not what is known
	wake    chan struct{}        // has an element when there is something pending
	writing int                  // peers with which the store is busy
	failed  error                // of the last writing; nil: it worked
}

// keepBook reads the book from a store, and from then on writes what changes in it.
func (h *Host) keepBook(store Store) error {
	bad, err := h.book.load(store, h.id)
	if err != nil {
		return err
	}
	if bad > 0 {
		h.log.Warn("peers in the store cannot be read and are forgotten", "peers", bad)
	}
	h.spawn(func(ctx context.Context) { h.book.keep(ctx, h.log) })
	return nil
}

// load reads what was stored, and tells how many peers could not be read.
func (b *book) load(store Store, self peer.ID) (bad int, err error) {
	now := time.Now().UnixNano()
	version, err := store.Get(bookKey)
	if err == nil && version == nil {
		err = store.Write(Change{bookKey, strconv.AppendInt(nil, bookVersion, 10)})
	} else if err == nil {
		err = checkBookVersion(version)
	}
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keeper = &bookKeeper{store: store, pending: make(map[peer.ID]struct{}), wake: make(chan struct{}, 1)}
	var lost []string
	err = store.Each(bookPrefix, func(key string, record []byte) error {
		id, err := peer.IDFromBytes([]byte(key[len(bookPrefix):]))
		if err != nil || id == self {
			lost = append(lost, key)
			return nil
		}
		addrs, err := decodeRecord(record, now)
		if err != nil {
			bad++
		}
		e := &bookEntry{id: id, addrs: addrs, stored: true}
		b.peers[id] = e
		if len(addrs) == 0 {
			b.forget(e)
			return nil
		}
		b.place(e)
		return nil
	})
	if err != nil {
		return 0, err
	}
	for len(lost) > 0 {
		n := min(len(lost), savePeers)
		changes := make([]Change, n)
		for i, key := range lost[:n] {
			changes[i].Key = key
		}
		if err := store.Write(changes...); err != nil {
			return 0, err
		}
		lost = lost[n:]
	}
	return bad, nil
}

func checkBookVersion(text []byte) error {
	version, err := strconv.ParseUint(string(text), 10, 32)
	switch {
	case err != nil || version == 0:
		return fmt.Errorf("host: the address book in the store has the version %.20q, which is none", text)
	case version > bookVersion:
		return fmt.Errorf("host: the address book in the store has version %d, and this program reads up to %d: use the newer version of it, or another store", version, bookVersion)
	}
	return nil
}

// changed notes that what is stored of e is no longer right. b.mu is held.
func (b *book) changed(e *bookEntry) {
	if b.keeper != nil && (e.stored || e.worthStoring()) {
		b.keeper.pend(e.id)
	}
}

// worthStoring tells whether a peer is stored: not what is known by hearsay, of which
// anybody can give us as much as the disk holds.
func (e *bookEntry) worthStoring() bool {
	return len(e.addrs) > 0 && (e.connected || e.usefulness() > rankHearsay)
}

// gone notes that e was forgotten. b.mu is held.
func (b *book) gone(e *bookEntry) {
	if k := b.keeper; k != nil {
		if delete(k.pending, e.id); e.stored {
			k.pend(e.id)
		}
	}
}

func (k *bookKeeper) pend(p peer.ID) {
	k.pending[p] = struct{}{}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// keep saves the book when it has changed, until ctx ends, and then once more.
func (b *book) keep(ctx context.Context, log *slog.Logger) {
	var said time.Time // zero: there is nothing to say
	for ctx.Err() == nil {
		select {
		case <-b.keeper.wake:
			select {
			case <-time.After(saveAfter):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		b.saveAll(ctx, savePause)
		switch n, err := b.unsaved(); {
		case err == nil && !said.IsZero():
			said = time.Time{}
			log.Info("what is learned of peers is saved again")
		case err != nil && err != errStoreSilent && time.Since(said) >= failingAgain:
			said = time.Now()
			log.Warn("what is learned of peers cannot be saved: make room on the disk, or let the program write there. It is tried again and again, and nothing is lost unless the program ends before",
				"peers", n, "err", err)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
	defer cancel()
	if err := b.saveAll(last, 0); err != nil {
		b.wrote(nil, err)
	}
}

// errStoreSilent is why something is not saved that the store was given.
var errStoreSilent = errors.New("host: saving the address book: the store has not answered: see whether its disk still works")

// unsaved tells, when saving fails or takes long, of how many peers something is not
// saved, and why.
func (b *book) unsaved() (peers int, err error) {
	k := b.keeper
	if k == nil {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err = k.failed; err == nil && k.writing > 0 {
		err = errStoreSilent
	}
	if peers = len(k.pending) + k.writing; peers == 0 {
		err = nil
	}
	return peers, err
}

// wrote notes what became of the peers that the store was given.
func (b *book) wrote(peers []peer.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.keeper
	k.writing -= len(peers)
	k.failed = err
	if err != nil {
		for _, p := range peers {
			k.pend(p)
		}
	}
}

// saveAll writes what is pending, as long as ctx lasts.
func (b *book) saveAll(ctx context.Context, pause time.Duration) error {
	b.keeper.saving.Lock()
	defer b.keeper.saving.Unlock()
	for {
		var changes []Change
		var peers []peer.ID
		for more := true; more && len(changes) < savePeers; {
			changes, peers, more = b.collect(changes, peers)
		}
		if len(changes) == 0 {
			return nil
		}
		err := b.keeper.store.Write(changes...)
		if err != nil {
			err = fmt.Errorf("host: saving the address book: %w", err)
		}
		b.wrote(peers, err)
		if err != nil {
			return err
		}
		if len(changes) < savePeers {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host: saving the address book: %w", context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// collect encodes some of the peers that are pending, and tells whether there are more.
func (b *book) collect(changes []Change, peers []peer.ID) ([]Change, []peer.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for p := range b.keeper.pending {
		if n++; n > saveStep {
			return changes, peers, true
		}
		delete(b.keeper.pending, p)
		c := Change{Key: bookPrefix + string(p.Bytes())}
		if e := b.peers[p]; e != nil {
			if e.stored = e.worthStoring(); e.stored {
				c.Value = e.appendRecord(nil)
			}
		}
		changes, peers = append(changes, c), append(peers, p)
		b.keeper.writing++
	}
	return changes, peers, false
}

// Sync saves what the host has learned and must survive a restart. It is also saved
// when the host is closed, and within seconds of a change; a program calls Sync when
// it may be ended without more words, as on a telephone. Without a Store it does nothing.
func (h *Host) Sync(ctx context.Context) error {
	if h.book.keeper == nil {
		return nil
	}
	return h.book.saveAll(ctx, 0)
}
