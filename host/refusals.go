package host

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// tellEvery is the pause between two lines of the log about one limit: who is
// attacked must not have the disk filled as well.
const tellEvery = time.Minute

// alarmEvery is how often at most a LimitReached of one scope comes: often enough to
// see what goes on, and seldom enough for a flood not to fill a trace.
const alarmEvery = time.Second

// refusalLog counts what limits keep out and what ends for their sake. It tells
// programs with LimitReached and the operator in the log, of each at once, then once in
// alarmEvery and once in tellEvery for as long as it goes on.
type refusalLog struct {
	log   *slog.Logger
	spawn func(func(context.Context)) bool
	emit  func(Event)

	mu      sync.Mutex
	scopes  map[string]*refused // by LimitError.Scope, of which there are a dozen
	telling bool
}

// refused is what one limit has done.
type refused struct {
	last     LimitError
	n, ended uint64 // kept out so often, and ended something
	emitted  [2]uint64
	told     uint64 // of both, in the log
}

func (r refused) all() uint64 { return r.n + r.ended }

// note counts one refusal. It does not block, and others' locks may be held. A nil log
// counts nothing.
func (r *refusalLog) note(e *LimitError) { r.add(e, 1, 0) }

// end counts that something that was there had to go. Otherwise it is like note.
func (r *refusalLog) end(e *LimitError) { r.add(e, 0, 1) }

func (r *refusalLog) add(e *LimitError, n, ended uint64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	of := r.scopes[e.Scope]
	if of == nil {
		if r.scopes == nil {
			r.scopes = make(map[string]*refused)
		}
		of = new(refused)
		r.scopes[e.Scope] = of
	}
	of.last = *e
	of.n += n
	of.ended += ended
	start := !r.telling
	r.telling = true
	r.mu.Unlock()
	if start && !r.spawn(r.tell) {
		r.mu.Lock()
		r.telling = false
		r.mu.Unlock()
	}
}

// count tells how often limits have refused or ended something.
func (r *refusalLog) count(scopes ...string) (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range scopes {
		if of := r.scopes[s]; of != nil {
			n += of.all()
		}
	}
	return n
}

// tell runs until nothing was refused for tellEvery.
func (r *refusalLog) tell(ctx context.Context) {
	again := time.NewTicker(alarmEvery)
	defer again.Stop()
	for wait := time.Duration(0); ; wait -= alarmEvery {
		if r.alarm(); wait <= 0 {
			news := r.news()
			if len(news) == 0 {
				return
			}
			for _, of := range news {
				if of.last.Scope != "HighWater" { // to keep it is the host's ordinary work
					r.log.Warn("limit reached", "limit", of.last.Scope, "used", of.last.Used, "of", of.last.Limit, "refused", of.all()-of.told, "remedy", of.last.Remedy())
				}
			}
			wait = tellEvery
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// alarm tells programs what they were not told yet.
func (r *refusalLog) alarm() {
	var events []LimitReached
	r.mu.Lock()
	for _, scope := range slices.Sorted(maps.Keys(r.scopes)) {
		of := r.scopes[scope]
		if now := [2]uint64{of.n, of.ended}; now != of.emitted {
			last := of.last
			events = append(events, LimitReached{Err: &last, Refused: now[0] - of.emitted[0], Ended: now[1] - of.emitted[1]})
			of.emitted = now
		}
	}
	r.mu.Unlock()
	for _, e := range events {
		r.emit(e)
	}
}

// news takes what the log was not told yet; when that is nothing, telling ends.
func (r *refusalLog) news() (news []refused) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, scope := range slices.Sorted(maps.Keys(r.scopes)) {
		if of := r.scopes[scope]; of.all() > of.told {
			news = append(news, *of)
			of.told = of.all()
		}
	}
	r.telling = len(news) > 0
	return news
}
