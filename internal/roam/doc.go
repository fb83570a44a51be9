// Package roam tests what happens to a node whose machine goes from one network to
// another. It has tests alone: they make network namespaces with two links between
// two nodes, each a process of its own, take addresses, links and whole address
// families away, stop the moving node for a while as a closed laptop does, and
// measure when traffic flows again and whether streams live on.
//
//	go test ./internal/roam -run TestFigures -v -moves=50 -timeout 20m
//	go test ./internal/roam -run TestFigures/.*/outage -v -moves=5 -outage=30s -timeout 20m
//
// The first prints the figures of docs/benchmarks; without flags there are a few moves and a
// short outage. The tests need the program ip, and Linux with root or user namespaces.
package roam
