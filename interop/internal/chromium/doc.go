// Package chromium loads pages of our own in a real browser: [Bundle] makes one script of a page's modules, [Start] starts
// Debian's Chromium without a window, and [Call] runs a page's
// functions.
package chromium
