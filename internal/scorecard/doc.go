// Package scorecard runs the attacks that the project has set itself figures for, all
// in one command, and prints goals and figures as one table. It has no code that a
// program could use.
//
//	go test ./internal/scorecard -timeout 3h -v -scorecard
//	go test ./internal/scorecard -timeout 1h -v -scorecard -rows 5,21,22,23
//
// Each row is a test of another package at full force. That wants a machine with
// nothing else to do, Linux, and 20,000 open files for a process. Without -scorecard it
// only looks whether the table in docs/attacks.md has each row and the tests exist.
package scorecard
