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

// refusalLog counts what limits keep out, and tells it to the operator: at once, then
// once in tellEvery for as long as it goes on.
type refusalLog struct {
	log   *slog.Logger
	spawn func(func(context.Context)) bool

	mu      sync.Mutex
	scopes  map[string]*refused // by LimitError.Scope, of which there are a dozen
	telling bool
}

// refused is what one limit has kept out.
type refused struct {
	last LimitError
	n    uint64 // so often
	told uint64 // of n
}

// note counts one refusal. It does not block, and others' locks may be held. A nil log
// counts nothing.
func (r *refusalLog) note(e *LimitError) {
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
	of.n++
	start := !r.telling
	r.telling = true
	r.mu.Unlock()
	if start && !r.spawn(r.tell) {
		r.mu.Lock()
		r.telling = false
		r.mu.Unlock()
	}
}

// count tells how often limits have refused.
func (r *refusalLog) count(scopes ...string) (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range scopes {
		if of := r.scopes[s]; of != nil {
			n += of.n
		}
	}
	return n
}

// tell runs until nothing was refused for tellEvery.
func (r *refusalLog) tell(ctx context.Context) {
	again := time.NewTicker(tellEvery)
	defer again.Stop()
	for {
		news := r.news()
		if len(news) == 0 {
			return
		}
		for _, of := range news {
			r.log.Warn("limit reached", "limit", of.last.Scope, "used", of.last.Used, "of", of.last.Limit, "refused", of.n-of.told, "remedy", of.last.Remedy())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// news takes what was not told yet; when that is nothing, telling ends.
func (r *refusalLog) news() (news []refused) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, scope := range slices.Sorted(maps.Keys(r.scopes)) {
		if of := r.scopes[scope]; of.n > of.told {
			news = append(news, *of)
			of.told = of.n
		}
	}
	r.telling = len(news) > 0
	return news
}
