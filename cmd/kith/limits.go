package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/kith-p2p/kith/host"
)

// printLimits shows what bounds a node with these limits, and how each follows.
func (a *app) printLimits(l host.Limits) error {
	rows := l.Rows(host.MachineMemory())
	if a.json {
		for _, r := range rows {
			a.event("limit", fields{"name": r.Name, "value": r.Value, "unit": r.Unit, "from": r.From, "what": r.What})
		}
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LIMIT\tVALUE\tOF\tFOLLOWS FROM")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, limitText(r), r.What, r.From)
	}
	return w.Flush()
}

func limitText(r host.LimitRow) string {
	switch {
	case r.Value < 0:
		return "none"
	case r.Unit == "bytes":
		return formatSize(uint64(r.Value))
	}
	return strings.TrimSpace(strconv.Itoa(r.Value) + " " + r.Unit)
}

// A byteSize is a flag such as 256MiB.
type byteSize int

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return formatSize(uint64(*b))
}

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) Set(s string) error {
	n, err := parseSize(s)
	if err == nil && (n < 1<<20 || n > math.MaxInt) {
		err = fmt.Errorf("%q is not enough memory for a node: at least 1MiB", s)
	}
	*b = byteSize(n)
	return err
}
