//go:build race

package local_test

// raceEnabled says that the race detector watches.
const raceEnabled = true
