// Package trace tells what a host does, in lines for people and in JSON for
// programs: every event of package host has its line here.
//
//	t := trace.Start(h, 4096)
//	defer t.Close()
//	for r := range t.Records() {
//		fmt.Println(r) // 12:04:05.123456 conn_opened 12*abcdef /ip4/192.0.2.7/tcp/4001 …
//	}
//
// Read in this order: describe.go (a line for each type of event), trace.go (the
// queue between the host and who reads), explain.go with remedy.go (one dial, as a
// table with reasons and what to do), handler.go (the trace of a running node over HTTP).
//
// # Limits
//
// A [Trace] is bounded and never makes the host wait: who reads too slowly gets a
// record of how many events were lost. [Handler] serves 16 readers at a time.
//
// # Not implemented
//
// What goes over streams: payloads are the programs' own.
package trace
