package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A PreCommit is code that runs before a commit in its space exists. See [Hooks.Add].
type PreCommit func(tx *Tx, ops []Op) error

// A HookError says which hook refused a commit, and why; nothing of the commit was written. It is an [ErrPermission].
type HookError struct {
	Space  *Space   // that the hook is bound to
	Key    Key      // that it objects to, in Space or a space within; nil: the commit as a whole
	Reason string   // what it says
	Chain  []*Space // of hooks whose ops set this one off, outermost first
	Err    error    // what the hook returned
}

func (e *HookError) Error() string {
	s := "refused by a hook"
	if e.Space != nil {
		s += " of space " + e.Space.String()
	}
	if e.Key != nil {
		s += ", key " + e.Key.String()
	}
	s += ": " + e.Reason
	for i, from := range e.Chain {
		if i == 0 {
			s += " (set off by hooks of "
		} else {
			s += " → "
		}
		s += from.String()
	}
	if len(e.Chain) > 0 {
		s += ")"
	}
	return s
}

// Is reports whether target is [ErrPermission].
func (e *HookError) Is(target error) bool { return target == ErrPermission }

// Unwrap returns what the hook returned.
func (e *HookError) Unwrap() error { return e.Err }

// Refuse is the error with which a hook refuses a commit because of op.
func Refuse(op Op, reason string) error { return &HookError{Key: op.Key, Reason: reason} }

// Drop takes an op out of the commit. Only a pre-commit hook can, and only an op that it was given; of a staged chain it is an [ErrUnsupported].
func (tx *Tx) Drop(op Op) error { return tx.edit(op, nil, true) }

// Replace sets the value that a put of the commit will have. Only a pre-commit hook can, and only of an op that it was given.
func (tx *Tx) Replace(op Op, value []byte) error { return tx.edit(op, value, false) }

func (tx *Tx) edit(op Op, value []byte, drop bool) error {
	run := tx.hooks
	if run == nil || run.running == nil {
		return fmt.Errorf("change an op outside of a pre-commit hook: %w", ErrUnsupported)
	}
	if op.at == 0 || op.at > len(run.ops) || op.run != run || !op.In(run.running.space) {
		return fmt.Errorf("change an op that the hook was not given: %w", ErrPermission)
	}
	if !drop && op.Kind != OpPut {
		return fmt.Errorf("set the value of a %s: %w", op.Kind, ErrUnsupported)
	}
	if err := LimitValue.Check(len(value)); err != nil {
		return err
	}
	o := &run.ops[op.at-1]
	if drop && op.at <= run.chained {
		return fmt.Errorf("drop an op of a chain: %w; refuse the chain, or replace the value", ErrUnsupported)
	}
	was := *o
	o.dropped = drop
	if !drop {
		o.replaced = true
		o.value = bytes.Clone(wire.StoredValue(value))
	}
	run.edited = true
	if drop || was.dropped || !run.reshow(op.at, was.value, o) {
		run.stale = true
	}
	return nil
}

// reshow has what tx reads show another value of an op of the proposal, and reports whether it does.
func (r *hookRun) reshow(at int, was []byte, o *hookOp) bool {
	if r.stale || at > r.own || len(was) == 0 {
		return r.stale
	}
	// The last op on the key is the one whose very bytes are read.
	if n := r.tx.own.keys.floor(o.key, true); n != nil && bytes.Equal(n.key, o.key) && len(n.value) > 0 && &n.value[0] == &was[0] {
		r.tx.own.put(o.key, o.value, false)
	}
	return true
}

// Hooks is the pre-commit hooks of an engine. It is for engines, which run them on each proposal before it is committed. The zero Hooks
// is not ready; see [NewHooks]. It is safe for concurrent use.
type Hooks struct {
	db    *DB
	mu    sync.Mutex // taken to change bound
	bound atomic.Pointer[hookIndex]
	n     int // hooks that were ever added
}

type boundHook struct {
	space *Space
	order int
	run   PreCommit
	// streamed has it be called with some ops of a large chain at a time.
	streamed bool
}

// NewHooks is no hooks yet, for the database that db is the front of.
func NewHooks(db *DB) *Hooks { return &Hooks{db: db} }

// Add binds a hook to the subtree of s: it is called for each commit with ops there, with a transaction and those ops, and
// may read, add ops anywhere (hooks there are called for them), drop ops it was given or set their values, or
// return an error to refuse the commit. Hooks of outer spaces come first, those of one space in the order of Add. Its
// reads are validated with the commit's: what it has found is still true when the commit gets its id. On a conflict it is
// called again, so it must have no effects outside of tx.
func (h *Hooks) Add(s *Space, run PreCommit) (remove func(), err error) { return h.add(s, run, false) }

// AddStreamed is Add for a hook that needs not be given all ops of a commit at once: of a large chain it is called with some at a time.
// What it reads shows the ops of that call, and those that hooks have added so far, but not the rest of the chain. What hooks write comes behind all
// ops of the chain, so that it wins over what the chain says of the same keys, in later calls too; but a value that was replaced is that of its op, and what the
// chain says of the key after that wins.
func (h *Hooks) AddStreamed(s *Space, run PreCommit) (remove func(), err error) {
	return h.add(s, run, true)
}

func (h *Hooks) add(s *Space, run PreCommit, streamed bool) (remove func(), err error) {
	if err := h.db.owns(s); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	b := &boundHook{space: s, order: h.n, run: run, streamed: streamed}
	h.bound.Store(newHookIndex(append(h.index().hooks(), b)))
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.bound.Store(newHookIndex(slices.DeleteFunc(h.index().hooks(), func(other *boundHook) bool { return other == b })))
	}, nil
}

// index is the hooks there are; nil: there are none.
func (h *Hooks) index() *hookIndex { return h.bound.Load() }

// Touch reports whether p has an op in a space with a hook.
func (h *Hooks) Touch(p *waist.Proposal) bool {
	x := h.index()
	if x == nil {
		return false
	}
	ops := p.Ops
	for range p.Count {
		_, key, _, rest, err := wire.NextOp(ops)
		if err != nil {
			return false
		}
		if x.find(key) != nil {
			return true
		}
		ops = rest
	}
	return false
}

// Run calls the hooks that p sets off, which read snap, and returns the proposal that comes out. A refusal is a *[HookError].
func (h *Hooks) Run(ctx context.Context, p *waist.Proposal, snap waist.Snapshot) (*waist.Proposal, error) {
	tx := &Tx{ctx: ctx, db: h.db, snap: snap}
	tx.reads.Base = snap.ID()
	if p.Reads != nil {
		tx.reads = waist.Reads{Base: min(p.Reads.Base, snap.ID()), Keys: slices.Clip(p.Reads.Keys), Ranges: slices.Clip(p.Reads.Ranges)}
	}
	run := &hookRun{tx: tx, index: h.index(), room: MaxHookAddedBytes}
	tx.hooks = run
	tx.batch.proposal = waist.Proposal{Ops: slices.Clip(p.Ops), Count: p.Count}
	if err := run.take(nil); err != nil {
		return nil, err
	}
	if err := run.rounds(); err != nil {
		return nil, err
	}
	return run.result(p)
}

// A hookRun is one proposal on its way through the hooks. Ops go through in rounds: the proposal's own first, then those that
// hooks added in the round before, so that each op is shown to each hook once.
type hookRun struct {
	tx      *Tx
	index   *hookIndex
	ops     []hookOp
	bytes   int        // of tx.batch that are in ops
	passed  []*Space   // of the hooks that were called
	running *boundHook // nil between calls
	edited  bool       // an op was dropped or changed: the bytes must be made anew
	stale   bool       // what tx reads does not show all ops as they are
	rebuilt int        // how often all that it reads was made anew
	room    int        // for what hooks add, in bytes of memory
	own     int        // ops that are not added
	ownSize int        // their size
	kept    slab       // what hooks are given of the proposal, which is its writer's
	// Of a chain that is staged, whose own ops are not made anew: how many of ops are its own, in this call, and what hooks have added in calls before. In the
	// commit all that hooks have added or replaced comes behind the chain's own ops, so it does in what reads show.
	chained int
	before  overlay
	outdone []bool // which of these a later one is about the key of; nil: none
}

type hookOp struct {
	kind       OpKind
	key, value []byte   // stored
	chain      []*Space // of the hooks that led to it
	dropped    bool
	replaced   bool
}

// take takes over ops that were added to the transaction, by the hooks of chain.
func (r *hookRun) take(chain []*Space) error {
	rest := r.tx.batch.proposal.Ops[r.bytes:]
	for len(rest) > 0 {
		kind, key, value, next, err := wire.NextOp(rest)
		if err != nil {
			return err
		}
		rest = next
		if r.bytes == 0 && r.index.find(key) != nil { // the proposal's: a hook may keep it, the writer may use its memory again
			key, value = r.kept.copy(key), r.keep(kind, value)
		}
		r.ops = append(r.ops, hookOp{kind: kind, key: key, value: value, chain: chain})
	}
	if r.bytes == 0 {
		r.own, r.ownSize = r.tx.batch.proposal.Count, len(r.tx.batch.proposal.Ops)
		r.stale = true // a hook that reads nothing does without
	}
	r.bytes = len(r.tx.batch.proposal.Ops)
	return nil
}

// stands reports whether an op of the chain has a value of a hook's, which shows.
func (r *hookRun) stands(i int) bool {
	return r.ops[i].replaced && (r.outdone == nil || !r.outdone[i])
}

// under has reads show the chain's own ops, where nothing that hooks have added shows.
func (r *hookRun) under() {
	for i := r.chained - 1; i >= 0; i-- {
		if o := &r.ops[i]; !o.replaced {
			r.tx.own.under(o.kind, o.key, o.value)
		}
	}
}

func (r *hookRun) keep(kind OpKind, value []byte) []byte {
	if kind == OpDelete {
		return nil
	}
	return r.kept.copy(value)
}

// hookOpBytes is what an op takes on its way through the hooks beside its bytes, twice: as it is kept, and as it is given to a hook.
const hookOpBytes = 256

// added is what the ops that hooks have added take in memory.
func (r *hookRun) added() int {
	p := &r.tx.batch.proposal
	return (p.Count-r.own)*hookOpBytes + len(p.Ops) - r.ownSize
}

// bound fails the transaction if hooks have added too much to it.
func (r *hookRun) bound() {
	if n := r.added(); n > r.room {
		r.tx.batch.fail(limitHookAdded.over(int64(MaxHookAddedBytes - r.room + n)))
	}
}

func (r *hookRun) rounds() error {
	for first, depth := 0, 1; first < len(r.ops); depth++ {
		end := len(r.ops)
		round := r.index.round(r.ops, first, end)
		for _, b := range round.hooks {
			ops, chain, err := r.given(round.ops[b])
			if err != nil {
				return err
			}
			if len(ops) == 0 {
				continue
			}
			if depth > MaxHookDepth {
				return &HookError{Space: b.space, Chain: chain, Reason: fmt.Sprintf("hooks set off one another more than %d deep", MaxHookDepth), Err: limitHookDepth.over(int64(depth))}
			}
			if err := r.call(b, ops, chain); err != nil {
				return err
			}
			if err := r.take(append(slices.Clip(chain), b.space)); err != nil {
				return err
			}
		}
		first = end
	}
	return nil
}

// given is the ops that a hook is given, of those that it is about, and the hooks that led to the first of them.
func (r *hookRun) given(about []int) (ops []Op, chain []*Space, err error) {
	l := lens{db: r.tx.db}
	ops = make([]Op, 0, len(about))
	for _, i := range about {
		o := &r.ops[i]
		if o.dropped {
			continue
		}
		op, err := l.op(o.kind, o.key, o.value)
		if err != nil {
			return nil, nil, err
		}
		op.at, op.run = i+1, r
		if len(ops) == 0 {
			chain = o.chain
		}
		ops = append(ops, op)
	}
	return ops, chain, nil
}

// call runs one hook. Its panic is its refusal: a hook must not end its host.
func (r *hookRun) call(b *boundHook, ops []Op, chain []*Space) (err error) {
	r.running = b
	defer func() {
		r.running = nil
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		if err == nil {
			err = errors.Join(r.tx.err, r.tx.batch.err)
			if err != nil {
				return // the transaction's own: a failed read, a limit
			}
			r.passed = append(r.passed, b.space)
			return
		}
		refused := &HookError{Space: b.space, Chain: chain, Reason: err.Error(), Err: err}
		var own *HookError
		if errors.As(err, &own) && own.Space == nil {
			refused.Key, refused.Reason, refused.Err = own.Key, own.Reason, own.Err
		}
		err = refused
	}()
	return b.run(r.tx, ops)
}

// refresh makes what tx reads show the ops as they are now.
func (r *hookRun) refresh() {
	if !r.stale {
		return
	}
	r.stale = false
	r.rebuilt++
	r.tx.own = r.before.fork()
	r.under()
	for i := range r.ops {
		if o := &r.ops[i]; !o.dropped && (i >= r.chained || r.stands(i)) {
			r.tx.own.apply(o.kind, o.key, o.value)
		}
	}
	if r.tx.batch.err == nil { // else there may be none at all
		r.tx.own.applyAll(r.tx.batch.proposal.Ops[r.bytes:]) // added by the hook that runs
	}
}

// result is the proposal that came out.
func (r *hookRun) result(p *waist.Proposal) (*waist.Proposal, error) {
	out := &waist.Proposal{
		Token: p.Token, Ticket: p.Ticket, Task: p.Task, Reads: &r.tx.reads, Ops: r.tx.batch.proposal.Ops, Count: len(r.ops),
		Blobs: p.Blobs + r.tx.batch.proposal.Blobs,
	}
	if r.edited {
		out.Ops, out.Count = nil, 0
		for i := range r.ops {
			if o := &r.ops[i]; !o.dropped {
				out.Ops = wire.AppendOp(out.Ops, o.kind, o.key, o.value)
				out.Count++
			}
		}
	}
	var move []byte // its item comes behind those of hooks
	if p.Task != nil && !p.Task.Admin {
		move = wire.AppendTaskMove(nil, p.Task)
	}
	out.Meta = appendHooks(p.Meta[:len(p.Meta)-len(move)], r.passed)
	out.Meta = append(out.Meta, move...)
	return out, limitHooked.Check(len(out.Meta) + len(out.Ops))
}

// appendHooks appends the items that name the spaces whose hooks a commit has passed.
func appendHooks(meta []byte, passed []*Space) []byte {
	meta = slices.Clip(meta)
	slices.SortFunc(passed, func(a, b *Space) int { return bytes.Compare(a.prefix, b.prefix) })
	for _, s := range slices.CompactFunc(passed, (*Space).Equal) {
		meta = wire.AppendHook(meta, s.prefix)
	}
	return meta
}
