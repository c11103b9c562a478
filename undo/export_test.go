package undo

import "testing"

// Bounds makes the bounds of what is done in memory small, until the end of the test, so that little takes the ways of much.
func Bounds(t testing.TB, keys, bytes int) {
	t.Helper()
	k, b, h := smallKeys, smallBytes, historyBytes
	t.Cleanup(func() { smallKeys, smallBytes, historyBytes = k, b, h })
	smallKeys, smallBytes, historyBytes = keys, bytes, bytes
}

// DiffBound makes the bound of a difference small.
func DiffBound(t testing.TB, bytes int) {
	t.Helper()
	d := diffBytes
	t.Cleanup(func() { diffBytes = d })
	diffBytes = bytes
}

// CascadeBounds makes the bounds of cascades small.
func CascadeBounds(t testing.TB, commits, keys, bytes int) {
	t.Helper()
	c, k, b := cascadeCommits, cascadeKeys, cascadeBytes
	t.Cleanup(func() { cascadeCommits, cascadeKeys, cascadeBytes = c, k, b })
	cascadeCommits, cascadeKeys, cascadeBytes = commits, keys, bytes
}
