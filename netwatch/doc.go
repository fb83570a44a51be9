// Package netwatch tells when the machine's way into the network has changed: an
// address or a route came or went, a link went down or up, or the machine has slept.
//
// On Linux the kernel tells (rtnetlink, see rtnetlink(7)); elsewhere, and where the
// kernel does not let us listen, it is looked every two seconds. Many notices in a row
// are one change, and what leaves everything as it was is none: routers renew
// addresses every few seconds.
//
// Sleep shows in that the clock went on while we did not: that of a closed laptop, and
// that of a stopped process.
//
// Read in this order: netwatch.go, netlink_linux.go.
package netwatch
