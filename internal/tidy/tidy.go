// Package tidy holds tests of the repository's shape: which package may import which, what has a doc comment,
// whether doc links and links in Markdown lead anywhere, how long files and functions are. It has no other code.
//
// A check is a function from a tree (the repository's files, Go files parsed) to the problems it finds. It has a test
// on a small tree in memory that shows it fails there, and TestRepository runs it on the real one. The files are parsed here,
// not listed by the go command: the go command's answer is not among the files that `go test` looks at when it
// decides whether a cached "ok" still holds.
//
// What a reviewer has to agree to stands in tables: arrows and testArrows, modules and testModules, and the
// ratchet of files and functions that are longer than they should be.
package tidy
