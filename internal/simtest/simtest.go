// Package simtest holds the tests that put a whole database under stress and compare it with a model of a map and a slice.
//
// Random programs, each made from a seed that is printed, run against databases whose disks lose what was not synced, fail at
// the n-th operation, or are full for a while (TestPrograms and its neighbours). What must always be true, the numbered lines
// of the design, are functions in invariants_test.go; what a follower is promised, functions in watch_test.go. Real processes are
// killed, real file systems cut off from their power, filled up and made to fail, where the machine allows it.
//
// In TestTogether everything is on at once: all of that, on one database, with other options at each opening. Its programs run in virtual time, so that a call that
// does not return is found at once; a seed makes the same run again, and steps can be left out of it.
//
// The runs are short unless flags say otherwise:
//
//	go test ./internal/simtest -simtest.seeds=1000 -simtest.steps=2000   # a soak
//	go test ./internal/simtest -run TestPrograms -simtest.seed=42        # one run again
//	go test ./internal/simtest -run TestTogether$ -simtest.seed=42 -simtest.trace    # what its steps come to
//	go test ./internal/simtest -run TestTogether$ -simtest.seed=42 -simtest.shrink   # the steps that its failure needs
//	go test ./internal/simtest -run TestTogether$ -simtest.seeds=500 -simtest.everything   # with what is excluded as it is known to fail
//
// The package has no code of its own beside the tests.
package simtest
