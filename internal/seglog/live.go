package seglog

import (
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A live is what this opening knows of a segment that is not sealed: what grows with every group. Segments that were full when the log was
// opened have none.
type live struct {
	header segment.Header
	end    atomic.Int64 // offset behind the last durable group
	oldest atomic.Int64 // time of the first commit, in microseconds since 1970; 0: no commit
	begun  atomic.Int64 // by Options.Passed: when the first commit came, or the segment did; 0: not known
	ended  atomic.Int64 // by Options.Passed: when the last commit came, or later where that is not known

	mu struct {
		sync.Mutex
		file   vfs.File       // for writing: of the appender, then of the sealer; nil: closed, or taken
		marks  []segment.Mark // are only appended to
		chains []segChain     // whose records are in it; are only appended to
	}
}

// takeFile has the caller own the file, which may be nil.
func (v *live) takeFile() vfs.File {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.mu.file
	v.mu.file = nil
	return f
}

// groups is what is known of the groups of v.
func (v *live) groups() (marks []segment.Mark, chains []segChain) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.marks, v.mu.chains
}

// empty reports whether there is no group.
func (v *live) empty() bool { return v.end.Load() == segment.HeaderSize }
