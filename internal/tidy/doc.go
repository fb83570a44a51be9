// Package tidy holds no code, only tests that read this repository and keep its
// promises: which package may import which (policy_test.go), what every new
// dependency costs (deps_test.go), that the cores of protocols are pure
// (pure_test.go), and that packages are documented (docs_test.go).
package tidy
