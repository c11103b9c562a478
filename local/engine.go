package local

import (
	"context"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
)

// inlineBytes is up to which size the ops of a chain are committed as those of a batch are.
func (e *engine) inlineBytes() int { return int(min(inlineBytes, e.opts.ChainBytes/8)) }

// Protect is as batchlog.Queuer says.
func (e *engine) Protect(ctx context.Context, ticket uint64, reads *waist.Reads) (now uint64, release func(), err error) {
	return e.lines.Protect(ctx, ticket, reads)
}

// Get is as batchlog.Getter says.
func (e *engine) Get(ctx context.Context, key []byte, o batchlog.ReadOptions) ([]byte, error) {
	if err := e.hold(ctx, o); err != nil {
		return nil, err
	}
	if err := e.roster.Hold(ctx, key, o); err != nil {
		return nil, err
	}
	return e.store.Get(key)
}

// View is as batchlog.Engine says.
func (e *engine) View(ctx context.Context, o batchlog.ReadOptions) (waist.Snapshot, error) {
	if err := e.hold(ctx, o); err != nil {
		return nil, err
	}
	if o.Only != "" {
		if err := e.roster.Hold(ctx, []byte(o.Only), o); err != nil {
			return nil, err
		}
		o.Plain = true
	}
	return e.roster.View(ctx, o)
}

// parts is the engine as its roster sees it.
type parts struct{ *engine }

// Hold returns when the store is as far as o asks for.
func (p parts) Hold(ctx context.Context, o batchlog.ReadOptions) error { return p.hold(ctx, o) }

// Snapshot returns the store as it is.
func (p parts) Snapshot() (waist.Snapshot, error) {
	s, err := p.store.Snapshot()
	if err != nil {
		return nil, err // not a nil *store.Snapshot
	}
	return s, nil
}

// Applied is the commit that the store has reached.
func (p parts) Applied() batchlog.ID { return p.lines.Applied() }

// Session names this opening of the database.
func (p parts) Session() string { return p.session }

func (e *engine) hold(ctx context.Context, o batchlog.ReadOptions) error {
	if e.closed.Load() {
		return batchlog.ErrClosed
	}
	if err := e.lines.Hold(ctx, o); err != nil {
		return err // says what was waited for, also if ctx had ended before
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Log is as batchlog.Engine says.
func (e *engine) Log(ctx context.Context, o batchlog.LogOptions) (waist.LogReader, error) {
	if e.closed.Load() {
		return nil, batchlog.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return e.log.Reader(o)
}

// Head is as batchlog.Engine says.
func (e *engine) Head(context.Context) (batchlog.ID, error) {
	if e.closed.Load() {
		return 0, batchlog.ErrClosed
	}
	return e.log.Head(), nil
}

// Configure is as batchlog.Configurer says.
func (e *engine) Configure(ctx context.Context, c batchlog.LogConfig, paths [][]byte, dryRun bool) (batchlog.Plan, error) {
	if e.closed.Load() {
		return batchlog.Plan{}, batchlog.ErrClosed
	}
	c, err := checkConfig(c)
	if err != nil {
		return batchlog.Plan{}, err
	}
	for _, path := range paths {
		if len(path) != len("\xa0\x00") {
			return batchlog.Plan{}, fmt.Errorf("settings for a space other than the root: %w in this version", batchlog.ErrUnsupported)
		}
	}
	if dryRun {
		return e.plan(e.config(), c), nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(e.ctx, func() { stop(batchlog.ErrClosed) })()
	select {
	case e.configuring <- struct{}{}:
		defer func() { <-e.configuring }()
	case <-ctx.Done():
		return batchlog.Plan{}, context.Cause(ctx)
	}
	if e.closed.Load() {
		return batchlog.Plan{}, batchlog.ErrClosed
	}
	plan := e.plan(e.config(), c)
	if len(plan.Changes) == 0 && !e.settings.unsettled() && e.store.Undo() == c.Undo {
		return plan, nil
	}
	return plan, e.configure(ctx, c)
}

// configure has the settings of the log be c. Its caller holds e.configuring.
func (e *engine) configure(ctx context.Context, c batchlog.LogConfig) error {
	turn := e.endUndo
	if c.Undo {
		turn = e.beginUndo
	}
	if err := turn(ctx); err != nil {
		return err
	}
	err := e.places.configure(c)
	if err == nil {
		err = e.essential(func() error { return e.settings.set(c) })
	}
	e.places.refresh()
	now := e.config()
	e.log.Use(e.places.log())
	if e.store.Undo() && !now.Undo {
		_ = e.lines.Hold(ctx, batchlog.ReadOptions{}) // so that what was acknowledged so far has its inverse; should ctx end, the last ones have none
	}
	if !c.Undo || !e.settings.unsettled() { // else the disk may say that it is on
		e.store.SetUndo(now.Undo)
	}
	e.blobBytes.Store(int64(now.BlobBytes))
	return err
}

// plan says what changes between two settings.
func (e *engine) plan(old, c batchlog.LogConfig) batchlog.Plan {
	var p batchlog.Plan
	change := func(name string, before, after any) {
		if b, a := fmt.Sprint(before), fmt.Sprint(after); b != a {
			p.Changes = append(p.Changes, fmt.Sprintf("%s: %s → %s", name, b, a))
		}
	}
	ttl := func(d time.Duration) string {
		if d == 0 {
			return "for ever"
		}
		return d.String()
	}
	change("hot TTL", ttl(old.HotTTL), ttl(c.HotTTL))
	size := func(n int64) string {
		if n == 0 {
			n = batchlog.DefaultSegmentBytes
		}
		return fmt.Sprint(n, " bytes")
	}
	change("segments, from the next one on", size(old.SegmentBytes), size(c.SegmentBytes))
	change("directories", old.Dirs, c.Dirs)
	change("warm directories", old.Warm, c.Warm)
	change("warm TTL", ttl(old.WarmTTL), ttl(c.WarmTTL))
	blobs := func(n int) string {
		if n == 0 {
			return "never"
		}
		return fmt.Sprint("from ", n, " bytes on")
	}
	change("values that become blobs", blobs(old.BlobBytes), blobs(c.BlobBytes))
	undo := map[bool]string{false: "not kept", true: "kept, from the next commit on"}
	change("what commits overwrite", undo[old.Undo], undo[c.Undo])
	p.Segments, p.Bytes, p.Last = e.log.Expired(e.clock.time(), keepTTL(c))
	return p
}

// Status is as batchlog.Statuser says.
func (e *engine) Status(context.Context) (batchlog.Status, error) {
	if e.closed.Load() {
		return batchlog.Status{}, batchlog.ErrClosed
	}
	flushed, err := e.store.Flushed()
	if err != nil {
		return batchlog.Status{}, err
	}
	oldest, applied := e.log.Oldest(), e.lines.Applied()
	flushed = min(flushed, applied) // the store may be ahead of what it has said
	undo, err := e.undoStatus(oldest, applied)
	if err != nil {
		return batchlog.Status{}, err
	}
	s := batchlog.Status{
		Applied: applied, Head: e.log.Head(), Flushed: flushed, Oldest: oldest,
		Epoch: e.identity.Epoch, UUID: e.identity.UUID, Session: e.session, State: "open",
		BacklogBytes: e.lines.Backlog(), BacklogLimit: e.lines.BacklogLimit(), Followers: e.log.Followers(),
		Clock: e.clock.status(),
		Undo:  undo,
		Logs:  []batchlog.LogStatus{e.logStatus()},
		Store: e.store.Status(),
	}
	if err := e.trimmed.Load(); err != nil && *err != nil {
		s.Logs[0].Trouble = (*err).Error()
	}
	switch failed := e.failed(); {
	case failed != nil:
		s.State, s.Reason = "read-only", failed.Error()
	case e.store.NoSpace() || e.log.NoSpace():
		s.State, s.Reason = "no space", "the disk is full; writes are taken again when there is space"
	default:
		if err := e.lines.Trouble(); err != nil {
			s.Reason = "commits are durable, but applying them has failed and is tried again: " + err.Error()
		}
	}
	return s, nil
}

func (e *engine) logStatus() batchlog.LogStatus {
	s := e.log.Status()
	s.Config = e.config()
	s.Name = s.Config.Name
	s.Dirs = e.places.status()
	return s
}

// failed is why no writes are taken until the database is opened again, or nil.
func (e *engine) failed() error {
	if err := e.log.Failed(); err != nil {
		return err
	}
	if err := e.store.Failed(); err != nil {
		return err
	}
	return e.lines.Stopped()
}
