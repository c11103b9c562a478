package undo

import "testing"

// SetWindowBytes makes the bound of the values that a history has in memory small until the end of the test.
func SetWindowBytes(t *testing.T, n int) {
	t.Helper()
	was := windowBytes
	t.Cleanup(func() { windowBytes = was })
	windowBytes = n
}
