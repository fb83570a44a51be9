// Package feed is a bounded queue between one who tells and one who reads. The one
// who tells never waits: what the reader is too slow for is made one with what it
// replaces, or dropped and counted, and a mark stands in its place.
package feed
