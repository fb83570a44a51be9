package chromium

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// closeTimeout is what the browser has to end by itself before it is killed.
const closeTimeout = 10 * time.Second

// flags on top of chromedp's, which has no window, gives each browser a profile of its own, turns background work off and as
// root the sandbox. QUIC stays on: WebTransport needs it.
var flags = []chromedp.ExecAllocatorOption{
	chromedp.Flag("disable-gpu", true),
	chromedp.Flag("disable-component-update", true),
	// Without it WebRTC does not use the loopback interface.
	chromedp.Flag("allow-loopback-in-peer-connection", true),
}

// A Browser is one running Chromium.
type Browser struct {
	ctx       context.Context // chromedp keeps the browser in it
	allocator context.Context
	stop      func()
}

// Start starts Chromium with a new profile.
func Start(ctx context.Context) (*Browser, error) {
	allocator, stop := chromedp.NewExecAllocator(ctx, slices.Concat(chromedp.DefaultExecAllocatorOptions[:], flags)...)
	b := &Browser{allocator: allocator, stop: stop}
	b.ctx, _ = chromedp.NewContext(allocator) // ended by Close, or with allocator
	if err := chromedp.Do(b.ctx); err != nil {
		b.end()
		return nil, fmt.Errorf("start chromium: %w", err)
	}
	return b, nil
}

// Close ends the browser's processes and removes its profile.
func (b *Browser) Close() error {
	ctx, cancel := context.WithTimeout(b.ctx, closeTimeout)
	defer cancel()
	err := chromedp.Cancel(ctx)
	b.end()
	return err
}

// end kills what still runs, and waits.
func (b *Browser) end() {
	b.stop()
	chromedp.FromContext(b.allocator).Allocator.Wait()
}

// A Page is a tab.
type Page struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu  sync.Mutex
	log strings.Builder // guarded by mu
}

// Open loads a page in a new tab.
func (b *Browser) Open(url string) (*Page, error) {
	ctx, cancel := chromedp.NewContext(b.ctx)
	p := &Page{ctx: ctx, cancel: cancel}
	err := chromedp.Listen(ctx, p.note)
	if err == nil {
		err = chromedp.Do(ctx, chromedp.Navigate(url))
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("load %s: %w", url, err)
	}
	return p, nil
}

// Close closes the tab.
func (p *Page) Close() { p.cancel() }

// Log is what the page has written to its console, and the errors that nothing has caught.
func (p *Page) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *Page) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		fmt.Fprintf(&p.log, "%s:", e.Type)
		for _, arg := range e.Args {
			if len(arg.Value) > 0 {
				fmt.Fprintf(&p.log, " %s", arg.Value)
			} else {
				fmt.Fprintf(&p.log, " %s", arg.Description)
			}
		}
		p.log.WriteByte('\n')
	case *runtime.EventExceptionThrown:
		fmt.Fprintf(&p.log, "uncaught: %v\n", e.ExceptionDetails)
	}
}

// Call runs a function of a page, waits for its promise, and returns what it resolves to. ctx bounds it.
func Call[T any](ctx context.Context, p *Page, function string, args ...any) (T, error) {
	texts := make([]string, len(args))
	for i, arg := range args {
		text, err := json.Marshal(arg)
		if err != nil {
			return *new(T), fmt.Errorf("%s: %w", function, err)
		}
		texts[i] = string(text)
	}
	result, err := Eval[T](ctx, p, fmt.Sprintf("globalThis.%s(%s)", function, strings.Join(texts, ", ")))
	if err != nil {
		return result, fmt.Errorf("%s: %w", function, err)
	}
	return result, nil
}

// Eval returns the value of an expression in a page, or of the promise that it is. ctx bounds it.
func Eval[T any](ctx context.Context, p *Page, expression string) (T, error) {
	// chromedp finds the tab in its own context, which is made to end with ctx.
	run, cancel := context.WithCancel(p.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	result, err := chromedp.Run(run, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	return result, errors.Join(err, context.Cause(ctx))
}
