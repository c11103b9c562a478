package batchlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Each error is the sentinel that callers branch on, also when it is wrapped, and says in words what its fields say.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error // nil: none of ours
		says []string
	}{
		{&CorruptError{File: "x.seg", Offset: 4096, ID: 7, Err: errBroken}, ErrCorrupt, []string{"x.seg", "4096", "7", "broken"}},
		{&CorruptError{File: "x.seg"}, ErrCorrupt, []string{"x.seg"}},
		{&GapError{From: 3, Oldest: 9}, ErrGap, []string{"3", "8", "9"}},
		{&LimitError{What: "key", Size: 5, Limit: 4, Hint: "make it shorter"}, ErrTooLarge, []string{"key", "5", "4", "; make it shorter"}},
		{&LimitError{What: "key", Size: 5, Limit: 4}, ErrTooLarge, []string{"key"}},
		{&VersionError{What: "database", Version: 9, Known: 1}, ErrUnsupported, []string{"database", "9", "1", "newer"}},
		{&WaitError{For: 9, Applied: 7, Waited: time.Second, Err: context.DeadlineExceeded}, context.DeadlineExceeded, []string{"9", "7", "1s"}},
		{&LockError{Dir: "data", Holder: "process 7", Err: errBroken}, errBroken, []string{"data", "process 7"}},
	} {
		for _, err := range []error{c.err, fmt.Errorf("wrapped: %w", c.err)} {
			if !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			for _, other := range []error{ErrNotFound, ErrConflict, ErrClosed, ErrReadOnly, ErrTooLarge, ErrNoSpace, ErrGap, ErrCorrupt, ErrUncertain, ErrUnsupported, ErrPermission} {
				if !errors.Is(other, c.is) && errors.Is(err, other) {
					t.Errorf("%v is %v, too", err, other)
				}
			}
		}
		for _, word := range c.says {
			if !strings.Contains(c.err.Error(), word) {
				t.Errorf("%v does not say %q", c.err, word)
			}
		}
	}
	if !errors.Is(&CorruptError{Err: errBroken}, errBroken) {
		t.Error("what is wrong with the bytes is lost")
	}
}
