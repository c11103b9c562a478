package batchlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A ConflictError says which commit a transaction lost to, and by what. It is an [ErrConflict]. From [DB.Update], or a write with
// hooks, it means that the transaction has been tried again until its bounds, and nothing of it is written.
type ConflictError struct {
	ID     ID     // the commit that changed what was read; 0: it is not known, or not one alone
	Base   ID     // the view that was read
	Stored []byte // the key that it changed, or the lowest of a range, as it is stored; nil: it is not known
	Reason string // why else; "": that commit is why
	Err    error  // what is behind that, or nil

	Tries int           // how often it was tried; 0: this is of one try
	Took  time.Duration // in all, tries and what was between them

	Reads *waist.Reads // of the proposal that lost, with those of hooks. For engines; nil in what Update returns
}

func (e *ConflictError) Error() string {
	s := ErrConflict.Error() + ": "
	if e.Tries > 0 {
		s += fmt.Sprintf("lost %d times in %s, the last time as ", e.Tries, e.Took.Round(time.Millisecond))
	}
	switch {
	case e.Reason != "":
		s += e.Reason
	case e.Stored != nil:
		s += fmt.Sprintf("commit %d changed %s, which the transaction had read at %d", e.ID, placeOf(e.Stored), e.Base)
	default:
		s += fmt.Sprintf("commit %d changed what the transaction had read at %d", e.ID, e.Base)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Tries > 0 {
		s += "; try again later, read less, or do what takes long outside of the transaction"
	}
	return s
}

// placeOf is a stored key as people read it.
func placeOf(stored []byte) string {
	path, key, err := wire.SplitKey(stored)
	if err != nil {
		return fmt.Sprintf("key %x of a form that is not known", stored)
	}
	return fmt.Sprintf("key %s of space %s", Key(key), &Space{prefix: path})
}

// Is reports whether target is [ErrConflict].
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Unwrap returns what is behind it.
func (e *ConflictError) Unwrap() error { return e.Err }

// How a transaction that lost is tried again. All of it ends: with a commit, another error, or a *[ConflictError].
const (
	// MaxTries is how often a transaction that keeps losing is tried, where the engine can protect what it reads.
	MaxTries = 16
	// MaxTrying is how long after its first try one that lost is tried once more. A try that has begun may take as long as it does.
	MaxTrying = time.Minute

	protectAfter   = 4                      // lost tries after which what it read is protected
	protectSoon    = 500 * time.Millisecond // so long after its first try it is without more: a slow one loses much each time
	tryBackoff     = 100 * time.Microsecond // before the second try; doubled for each further one, with jitter
	tryBackoffMost = 10 * time.Millisecond
	// blindTries is how often it is tried where the engine can't protect it.
	blindTries = 1000
)

// A loss is a try that lost. Its reads are protected at the next one, so it names all that the transaction has read.
type loss struct {
	err   error
	reads *waist.Reads
}

func (l *loss) Error() string { return l.err.Error() }
func (l *loss) Unwrap() error { return l.err }

// Lost is err, if not nil, as [Persist] takes it when a commit lost to others and is to be tried again: if it is a conflict that the engine has found. reads
// is what the transaction has read, as far as the caller knows.
func Lost(err error, reads *waist.Reads) error {
	var refused *HookError
	if err == nil || !errors.Is(err, ErrConflict) || errors.As(err, &refused) {
		return err
	}
	var c *ConflictError
	if errors.As(err, &c) && c.Reads != nil {
		reads = c.Reads
	}
	return &loss{err, reads}
}

// Persist calls try until it does not lose to other commits (see [Lost]), with backoff. After some lost tries what the last one has read is protected by the
// engine, if it is a [Queuer]: only commits that touch that wait meanwhile. The tries of one transaction add to its protection as long as it lasts. When they
// reach MaxTries, or MaxTrying, it gives up and returns a *[ConflictError].
func Persist(ctx context.Context, e Engine, try func(ticket uint64) (ID, error)) (ID, error) {
	q, _ := e.(Queuer)
	p := persistence{queuer: q, began: time.Now(), backoff: tryBackoff}
	defer p.release()
	for {
		id, err := try(p.ticket)
		lost, ok := err.(*loss) //nolint:errorlint // what wraps it is no loss
		if !ok {
			return id, err
		}
		if err := p.lost(ctx, lost); err != nil {
			return 0, err
		}
	}
}

// A persistence is one transaction that is tried until it ends.
type persistence struct {
	queuer  Queuer // nil: there is none
	began   time.Time
	tries   int
	backoff time.Duration
	ticket  uint64
	end     func() // of the protection; nil: there is none
}

func (p *persistence) release() {
	if p.end != nil {
		p.end()
	}
}

// lost prepares for the next try, or says why there is none.
func (p *persistence) lost(ctx context.Context, l *loss) error {
	p.tries++
	took := time.Since(p.began)
	most := MaxTries
	if p.queuer == nil {
		most = blindTries
	}
	if p.tries >= most || took > MaxTrying {
		return p.giveUp(l, took)
	}
	if p.queuer != nil && l.reads != nil && (p.tries >= protectAfter || took > protectSoon) {
		ticket, end, err := p.queuer.Protect(ctx, p.ticket, l.reads)
		if err != nil {
			return err
		}
		p.ticket, p.end = ticket, end
		return nil
	}
	select {
	case <-ctx.Done():
		return cause(ctx)
	case <-time.After(time.Duration(rand.Int64N(int64(p.backoff)))):
	}
	p.backoff = min(2*p.backoff, tryBackoffMost)
	return nil
}

func (p *persistence) giveUp(l *loss, took time.Duration) error {
	final := &ConflictError{Reason: "others came between", Err: l.err}
	var c *ConflictError
	if errors.As(l.err, &c) {
		*final = *c
	}
	final.Tries, final.Took, final.Reads = p.tries, took, nil
	return final
}
