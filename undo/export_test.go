package undo

import "testing"

// SetWindowBytes makes the bound of the values that a history has in memory small until the end of the test.
func SetWindowBytes(t *testing.T, n int) {
	t.Helper()
	was := windowBytes
	t.Cleanup(func() { windowBytes = was })
	windowBytes = n
}

// SetSmallKeys has commits with more keys than that take the ways of large ones until the end of the test.
func SetSmallKeys(t *testing.T, n int) {
	t.Helper()
	was := smallKeys
	t.Cleanup(func() { smallKeys = was })
	smallKeys = n
}

// SetDiffBytes makes the bound of what Diff has in memory small until the end of the test.
func SetDiffBytes(t *testing.T, n int) {
	t.Helper()
	was := diffBytes
	t.Cleanup(func() { diffBytes = was })
	diffBytes = n
}
