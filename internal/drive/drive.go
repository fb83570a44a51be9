package drive

import (
	"context"
	"errors"
	"time"
)

// A Machine is the pure core of a protocol; A is what it can ask to be done. It
// is not safe for concurrent use. It never blocks, reads no clock and starts no
// goroutine. Its inputs are its other methods.
type Machine[A any] interface {
	HandleTimeout(now time.Time) // its deadline has passed
	Timeout() time.Time          // its next deadline; zero: none
	NextAction() (A, bool)       // its outputs; drained after every input
}

// DefaultInbox is how many inputs wait at most when the caller names no number:
// enough to ride out a pause of the scheduler, small enough that a slow machine
// is felt by its senders and not found in the heap.
const DefaultInbox = 256

// ErrStopped tells that the loop has ended, so that an input will not be run.
var ErrStopped = errors.New("drive: loop has stopped")

// A Loop drives one Machine in real time. Its methods are safe for concurrent
// use, with the exception that do and the inputs, which run in the loop's own
// goroutine, must not call Post or Call: they would wait for themselves.
type Loop[A any] struct {
	machine Machine[A]
	do      func(A)
	inbox   chan func(now time.Time)
	done    chan struct{} // closed when Run returns
}

// New returns a loop that has not started: inputs posted before Run wait in the
// inbox, which holds inbox inputs (0: DefaultInbox). The loop calls do for every
// action, in order, from its goroutine; while do runs, the machine waits.
func New[A any](machine Machine[A], inbox int, do func(A)) *Loop[A] {
	if inbox <= 0 {
		inbox = DefaultInbox
	}
	return &Loop[A]{machine: machine, do: do, inbox: make(chan func(time.Time), inbox), done: make(chan struct{})}
}

// Start is New and Run, the latter in a goroutine that spawn starts, such as
// the method Go of host.Host.
func Start[A any](spawn func(func(context.Context)), machine Machine[A], inbox int, do func(A)) *Loop[A] {
	l := New(machine, inbox, do)
	spawn(l.Run)
	return l
}

// Run drives the machine in the caller's goroutine until ctx ends; it is called
// once. Inputs that still wait then are dropped. After it has returned, the
// machine is the caller's own: its last words can be asked for and drained.
func (l *Loop[A]) Run(ctx context.Context) {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	timer.Stop()
	var armed time.Time // what timer is set to; zero: stopped
	for ctx.Err() == nil {
		for a, ok := l.machine.NextAction(); ok; a, ok = l.machine.NextAction() {
			l.do(a)
		}
		if at := l.machine.Timeout(); !at.Equal(armed) {
			armed = at
			if at.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(at))
			}
		}
		select {
		case <-ctx.Done():
		case input := <-l.inbox:
			input(time.Now())
		case <-timer.C:
			armed = time.Time{}
			l.machine.HandleTimeout(time.Now())
		}
	}
}

// Post hands input to the loop. While the inbox is full it waits. It returns
// ErrStopped when the loop has ended, the cause of ctx when that ended first.
// An accepted input is not run if the loop ends before its turn comes.
func (l *Loop[A]) Post(ctx context.Context, input func(now time.Time)) error {
	select {
	case <-l.done:
		return ErrStopped
	default:
	}
	select {
	case l.inbox <- input:
		return nil
	case <-l.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TryPost is Post that never waits: it reports false, and the input is lost,
// when the inbox is full or the loop has ended. It may be called from the loop's
// own goroutine.
func (l *Loop[A]) TryPost(input func(now time.Time)) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.inbox <- input:
		return true
	default:
		return false
	}
}

// Call is Post that waits until input has run. After an error input may still
// run, so what it writes must not be read then.
func (l *Loop[A]) Call(ctx context.Context, input func(now time.Time)) error {
	ran := make(chan struct{})
	err := l.Post(ctx, func(now time.Time) {
		defer close(ran)
		input(now)
	})
	if err != nil {
		return err
	}
	select {
	case <-ran:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.done:
	}
	select {
	case <-ran: // it was the last one
		return nil
	default:
		return ErrStopped
	}
}

// Done returns a channel that is closed when Run has returned.
func (l *Loop[A]) Done() <-chan struct{} { return l.done }
