//go:build race

package seglog

// raceEnabled says that the race detector watches.
const raceEnabled = true
