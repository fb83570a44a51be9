// Package unified plays the roles of libp2p's public interoperability suites, github.com/libp2p/unified-testing at commit
// 7a7e8ae6: "transport" (one dial, one ping) and "perf" (throughput and latency). Environment variables say which role, Redis
// passes the listener's address, and the dialer prints its result as YAML and judges by its exit status.
//
// Read in this order: contract.go, stats.go, redis.go.
//
// Where the suites' documents and runners disagree, the runners are followed: transport passes the address in a Redis list,
// perf in a string.
//
// Not implemented: the hole-punch and kad-dht suites; the legacy variables in lower case.
package unified
