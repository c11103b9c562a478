package local

import (
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
)

// recentBlobs is which blobs must stay although the store does not say that anything refers to them: those that somebody was handed of late, who
// may yet put a reference to them, and those that writers under way refer to. A sweep asks for one blob at a time: who writes others does not
// keep it from removing that one.
//
// A writer claims a blob before it looks whether the blob is there. From then on the blob stays, until the store has applied all that was in the log when the
// writer was done. What is being removed can't be claimed until it is gone.
type recentBlobs struct {
	mu       sync.Mutex
	at       map[blob.Hash]time.Time // when it was handed out, or claimed
	claims   map[blob.Hash]blobClaim
	removing map[blob.Hash]chan struct{} // closed when it is gone
	// many counts the writers with more claims than are noted: while there is one, and until manyUntil is applied, nothing is removed.
	many      int
	manyUntil batchlog.ID
}

// A blobClaim is of the writers that refer to a blob.
type blobClaim struct {
	writers int         // under way
	until   batchlog.ID // of those that are done: what the log had then
}

// claimsMax bounds the claims of one writer that are noted one by one.
const claimsMax = 1 << 16

func newRecentBlobs() recentBlobs {
	return recentBlobs{at: map[blob.Hash]time.Time{}, claims: map[blob.Hash]blobClaim{}, removing: map[blob.Hash]chan struct{}{}}
}

// lock takes mu when nobody removes the blob.
func (r *recentBlobs) lock(h blob.Hash) {
	r.mu.Lock()
	for {
		gone, ok := r.removing[h]
		if !ok {
			return
		}
		r.mu.Unlock()
		<-gone
		r.mu.Lock()
	}
}

// keep keeps a blob from being swept for a while.
func (r *recentBlobs) keep(h blob.Hash) {
	r.lock(h)
	defer r.mu.Unlock()
	r.at[h] = time.Now()
}

// expire forgets what was kept long enough, and what was claimed by writers whose commits are applied.
func (r *recentBlobs) expire(applied batchlog.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h, at := range r.at {
		if time.Since(at) > sweepAge {
			delete(r.at, h)
		}
	}
	for h, c := range r.claims {
		if c.writers == 0 && c.until <= applied {
			delete(r.claims, h)
		}
	}
}

// remove begins to remove a blob, unless it must stay. done is to be called when it is gone.
func (r *recentBlobs) remove(h blob.Hash, age time.Duration, applied batchlog.ID) (done func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, kept := r.at[h]; kept && time.Since(at) < age {
		return nil, false
	}
	c := r.claims[h]
	if c.writers > 0 || c.until > applied || r.many > 0 || r.manyUntil > applied {
		return nil, false
	}
	gone := make(chan struct{})
	r.removing[h] = gone
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.removing, h)
		close(gone)
	}, true
}

// A blobWriter is who is about to commit references to blobs: a commit, or a chain. The zero value has claimed none. Its owner alone uses it.
type blobWriter struct {
	claimed map[blob.Hash]struct{}
	many    bool
}

// claim keeps a blob until the writer is done and what it wrote is applied. When it returns the blob is there to stay, or is not there.
func (r *recentBlobs) claim(w *blobWriter, h blob.Hash) {
	r.lock(h)
	defer r.mu.Unlock()
	r.at[h] = time.Now()
	if _, ok := w.claimed[h]; ok || w.many {
		return
	}
	if len(w.claimed) == claimsMax {
		w.many = true
		r.many++
		return
	}
	if w.claimed == nil {
		w.claimed = map[blob.Hash]struct{}{}
	}
	w.claimed[h] = struct{}{}
	c := r.claims[h]
	c.writers++
	r.claims[h] = c
}

// release ends the claims of a writer when all that the log has now is applied. It may be called again.
func (r *recentBlobs) release(w *blobWriter, head batchlog.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := range w.claimed {
		c := r.claims[h]
		c.writers--
		c.until = max(c.until, head)
		r.claims[h] = c
	}
	if w.many {
		r.many--
		r.manyUntil = max(r.manyUntil, head)
	}
	*w = blobWriter{}
}
