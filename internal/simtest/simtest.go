// Package simtest holds the tests that put a whole database under stress and compare it with a model of a map and a slice.
//
// Random programs, each made from a seed that is printed, run against databases whose disks lose what was not synced, fail at
// the n-th operation, or are full for a while (TestPrograms and its neighbours). What must always be true, the numbered lines
// of the design, are functions in invariants_test.go; what a follower is promised, functions in watch_test.go. Real processes are
// killed, real file systems cut off from their power, filled up and made to fail, where the machine allows it.
//
// The runs are short unless flags say otherwise:
//
//	go test ./internal/simtest -simtest.seeds=1000 -simtest.steps=2000   # a soak
//	go test ./internal/simtest -run TestPrograms -simtest.seed=42        # one run again
//
// The package has no code of its own beside the tests.
package simtest
