package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// VerifyOptions say what is verified.
type VerifyOptions struct {
	// LogOnly leaves out the store.
	LogOnly bool
	// Progress is told how far it is; nil: nobody.
	Progress func(Progress)
}

// Progress is how far long work has come.
type Progress struct {
	Stage       string // what is being done
	Done, Total int64  // Total is 0 where it is not known
	Unit        string // of Done and Total: "bytes", "commits" or "keys"
}

// A Report is what was found.
type Report struct {
	First, Last batchlog.ID // the commits that were verified
	Commits     int64
	Ops         int64
	Segments    int64
	Bytes       int64 // of the log
	Keys        int64 // in the store
	Inverses    int64 // of commits, that the store has and that were compared with the log; none unless Complete
	Blobs       int64 // that the commits and keys refer to
	BlobBytes   int64 // of these
	// Complete says that the log goes back to commit 1, so that every key of the store was compared. If not, keys that
	// no commit in the log has touched could not be.
	Complete bool
	Problems []Problem // none: all is well
}

// A Problem is one fault, and where it is; places that do not apply are zero.
type Problem struct {
	What   string
	File   string
	Offset int64
	ID     batchlog.ID
	Space  string // with Key
	Key    string
}

// String is the problem in one line.
func (p Problem) String() string {
	s := p.What
	if p.Key != "" {
		s += fmt.Sprintf(" (space %s, key %s)", p.Space, p.Key)
	}
	return s
}

// problemsMax bounds the problems of a report: more of them say no more.
const problemsMax = 1000

func (r *Report) add(p Problem) {
	if len(r.Problems) < problemsMax {
		r.Problems = append(r.Problems, p)
	}
}

func (r *Report) addError(err error) {
	p := Problem{What: err.Error()}
	var damage *batchlog.CorruptError
	if errors.As(err, &damage) {
		p.File, p.Offset, p.ID = damage.File, damage.Offset, damage.ID
	}
	var away *batchlog.DirError
	if errors.As(err, &away) {
		p.File = away.File
	}
	r.add(p)
}

// gone reports whether err says that a part of the log is damaged, or not there.
func gone(err error) bool {
	return errors.Is(err, batchlog.ErrCorrupt) || errors.Is(err, batchlog.ErrGap) || errors.As(err, new(*batchlog.DirError))
}

// Verify checks the log against itself, every byte of it, and the store against the log: all commits are applied once more,
// to a scratch store in the database's directory, and compared with what the store shows at that commit, and what it says that they have overwritten. Writers and readers go on
// meanwhile, but nothing of the log is dropped. The scratch store takes some 40 bytes a key and is removed afterwards.
//
// An error means that it could not be verified; what is wrong is in the report. What can't be read is, and what would be compared with it is not compared.
func (db *DB) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	r, err := db.verify(ctx, o)
	if full(err) && db.engine.ballast.release() {
		defer db.engine.restoreBallast()
		return db.verify(ctx, o)
	}
	return r, err
}

func (db *DB) verify(ctx context.Context, o VerifyOptions) (Report, error) {
	e := db.engine
	if e.closed.Load() {
		return Report{}, batchlog.ErrClosed
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	var r Report
	release, err := e.holdAll(ctx)
	if err != nil {
		return r, err
	}
	defer release()
	status := e.log.Status()
	r.Segments, r.Bytes = int64(status.Segments), status.Bytes
	err = e.log.Verify(ctx, func(done, total int64) {
		o.Progress(Progress{Stage: "log", Done: done, Total: total, Unit: "bytes"})
	}, r.addError)
	if err != nil {
		return r, err
	}
	f := fold{engine: e, report: &r, progress: o.Progress, compare: !o.LogOnly}
	r.First, r.Last = e.log.Oldest(), e.log.Head()
	switch f.view, err = e.View(ctx, batchlog.ReadOptions{}); {
	case err == nil:
		defer f.view.Close()
		r.Last = f.view.ID()
	case errors.Is(err, batchlog.ErrCorrupt):
		f.damaged(err)
		f.compare = false
	default:
		return r, err
	}
	return r, f.run(ctx)
}

// scratchPrefix begins the name of the directory of a verification's scratch store.
const scratchPrefix = "verify-"

// leftScratch are the scratch stores of verifications that a crash has ended: those that are there when nobody can verify yet.
func (e *engine) leftScratch() (dirs []string) {
	names, err := e.opts.FS.List(e.dir)
	if err != nil {
		e.opts.Logger.Warn("what verifications may have left is not looked for", "err", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, scratchPrefix) {
			dirs = append(dirs, filepath.Join(e.dir, name))
		}
	}
	return dirs
}

// clearScratch removes them.
func (e *engine) clearScratch(dirs []string) {
	for _, dir := range dirs {
		if e.ctx.Err() != nil {
			return // the next opening does
		}
		if err := e.opts.FS.RemoveAll(dir); err != nil {
			e.opts.Logger.Warn("scratch store of a verification not removed", "dir", dir, "err", err)
		}
	}
}

// holdAll has the log keep all that it has until release is called.
func (e *engine) holdAll(ctx context.Context) (release func(), err error) {
	e.chains.verifying.Add(1)
	release = func() { e.chains.verifying.Add(-1) }
	select {
	case e.trimming <- struct{}{}: // who trims now did not know
		<-e.trimming
		return release, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-e.ctx.Done():
		err = batchlog.ErrClosed
	}
	release()
	return nil, err
}

// A fold applies the log to a scratch store and compares.
type fold struct {
	engine   *engine
	view     waist.Snapshot
	report   *Report
	progress func(Progress)
	compare  bool

	scratch *store.Store
	deleted []wire.KeyRange           // by range deletes of the log
	ctx     context.Context           //nolint:containedctx // of one call
	chains  map[batchlog.ID]bool      // that were too large to be applied at once
	blobs   map[blob.Hash]batchlog.ID // that were checked; the newest commit that refers to each, as the store knows it
	told    map[string]bool           // damage of the store that is in the report
	lacking batchlog.ID               // the first commit whose ops can't be read; 0: all can
}

// damaged notes damage of the store, once.
func (f *fold) damaged(err error) {
	place := err.Error()
	if at := new(batchlog.CorruptError); errors.As(err, &at) {
		place = fmt.Sprint(at.File, at.Offset)
	}
	if f.told[place] {
		return
	}
	if f.told == nil {
		f.told = map[string]bool{}
	}
	f.told[place] = true
	f.report.addError(err)
}

func (f *fold) run(ctx context.Context) error {
	r := f.report
	f.ctx, f.blobs, f.chains = ctx, map[blob.Hash]batchlog.ID{}, map[batchlog.ID]bool{}
	r.Complete = r.First == 1
	if f.compare {
		dir := filepath.Join(f.engine.dir, fmt.Sprintf("%s%x", scratchPrefix, randomUUID()))
		defer func() {
			if err := f.engine.opts.FS.RemoveAll(dir); err != nil {
				f.engine.opts.Logger.Warn("scratch store not removed", "dir", dir, "err", err)
			}
		}()
		var err error
		f.scratch, err = store.Open(store.Options{
			FS: f.engine.opts.FS, Dir: filepath.Join(dir, storeName), Staging: filepath.Join(dir, chainsName), Logger: f.engine.opts.Logger, Base: r.First - 1, CacheBytes: 8 << 20, MemTableBytes: 16 << 20,
			InverseLimit: math.MaxInt64,
		})
		if err != nil {
			return fmt.Errorf("scratch store: %w", err)
		}
		defer f.scratch.Close()
		f.scratch.SetUndo(r.Complete)
	}
	whole, err := f.apply(ctx)
	if err != nil || !whole || !f.compare {
		return err
	}
	if f.lacking != 0 { // what is wrong with it is in the report already
		r.add(Problem{What: fmt.Sprintf("the store was not compared with the log: the ops of commit %d can't be read", f.lacking), ID: f.lacking})
		return nil
	}
	if err := f.compareKeys(ctx); err != nil {
		return err
	}
	return f.compareInverses(ctx)
}

// apply applies the commits of the log. whole is false if some can't be read, which is in the report.
func (f *fold) apply(ctx context.Context) (whole bool, err error) {
	r := f.report
	if r.Last < r.First {
		return true, nil
	}
	reader, err := f.engine.log.Reader(batchlog.LogOptions{From: batchlog.At(r.First), Until: r.Last})
	if err != nil {
		return false, err
	}
	defer reader.Close()
	lastTime := int64(0)
	for {
		records, scanned, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if gone(err) {
			r.add(Problem{What: "the store can't be compared: " + err.Error()})
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for i := range records {
			rec := &records[i]
			if rec.Time < lastTime {
				r.add(Problem{What: fmt.Sprintf("commit %d is older than the one before it", rec.ID), ID: rec.ID})
			}
			lastTime = rec.Time
			if rec.Chain != nil { // some of it may be loaded at once
				if err := f.applyScratch(records[:i]); err != nil {
					return false, err
				}
			}
			if err := f.take(ctx, rec); err != nil {
				return false, err
			}
		}
		if err := f.applyScratch(records); err != nil {
			return false, err
		}
		f.progress(Progress{Stage: "commits", Done: int64(scanned - r.First + 1), Total: int64(r.Last - r.First + 1), Unit: "commits"})
	}
}

// applyScratch applies those of records that the scratch store does not have yet.
func (f *fold) applyScratch(records []wire.Record) error {
	if !f.compare || len(records) == 0 {
		return nil
	}
	if f.scratch.NoSpace() {
		return fmt.Errorf("scratch store: %w", batchlog.ErrNoSpace)
	}
	return f.scratch.ApplyBounded(f.ctx, records[f.scratch.Applied()+1-records[0].ID:])
}

// The values of the scratch store: what the last op on a key was. Where the log is complete nothing stands for a key that was deleted.
const (
	scratchDeleted = 0
	scratchPut     = 1 // followed by the value's hash
)

func hashOf(value []byte) []byte {
	sum := sha256.Sum256(value)
	return sum[:16]
}

// take checks one commit and turns it into what the scratch store holds of it. Deletes become values there, as what the log has
// deleted must not be in the store even if it was put before the log begins.
func (f *fold) take(ctx context.Context, rec *wire.Record) error {
	r := f.report
	r.Commits++
	r.Ops += int64(rec.Count)
	if token := rec.Token(); token != "" && f.compare {
		id, found, err := f.engine.store.Token(token)
		switch {
		case errors.Is(err, batchlog.ErrCorrupt):
			f.damaged(err)
		case err != nil:
			return err
		case !found || id != rec.ID:
			r.add(Problem{What: fmt.Sprintf("the store does not know the token of commit %d", rec.ID), ID: rec.ID})
		}
	}
	var ops []byte
	var ownErr error // of the scratch store
	count := 0
	err := rec.EachOp(func(kind batchlog.OpKind, key, value []byte) error {
		switch kind {
		case batchlog.OpPut:
			if err := f.checkBlob(rec.ID, key, value); err != nil {
				return err
			}
			ops = wire.AppendOp(ops, batchlog.OpPut, key, append([]byte{scratchPut}, hashOf(value)...))
		case batchlog.OpDelete:
			if r.Complete {
				ops = wire.AppendOp(ops, batchlog.OpDelete, key, nil)
			} else {
				ops = wire.AppendOp(ops, batchlog.OpPut, key, []byte{scratchDeleted})
			}
		case batchlog.OpDeleteRange:
			ops = wire.AppendOp(ops, batchlog.OpDeleteRange, key, value)
			f.deleted = append(f.deleted, wire.KeyRange{Low: bytes.Clone(key), High: bytes.Clone(value)})
		}
		count++
		if rec.Chain == nil || len(ops) < scratchPiece {
			return nil
		}
		f.chains[rec.ID] = true
		ownErr = f.load(ops, count)
		ops, count = ops[:0], 0
		return ownErr
	})
	switch {
	case err == nil:
	case ownErr != nil || ctx.Err() != nil:
		return err
	default:
		r.addError(fmt.Errorf("commit %d: %w", rec.ID, err))
		if f.lacking == 0 {
			f.lacking = rec.ID
		}
	}
	rec.Ops, rec.Chain, rec.Count = ops, nil, count
	return nil
}

// scratchPiece is how many bytes of the ops of a chain are put into the scratch store at once.
const scratchPiece = 1 << 20

// load puts some of the ops of a chain into the scratch store.
func (f *fold) load(ops []byte, count int) error {
	if !f.compare {
		return nil
	}
	if f.scratch.NoSpace() {
		return fmt.Errorf("scratch store: %w", batchlog.ErrNoSpace)
	}
	return f.scratch.Load(ops, count)
}

// checkBlob makes sure that the blob which a put refers to, if it does, is there and has the content that its hash says.
func (f *fold) checkBlob(id batchlog.ID, key, value []byte) error {
	_, ref, err := wire.ParseValue(value)
	if ref == nil || err != nil {
		return err
	}
	known, checked := f.blobs[ref.Hash]
	if checked && known >= id {
		return nil
	}
	p := Problem{ID: id}
	if path, own, err := wire.SplitKey(key); err == nil {
		p.Space, p.Key = batchlog.Key(path).String(), batchlog.Key(own).String()
	}
	if !checked {
		known, err = f.engine.store.BlobLast(ref.Hash)
		if errors.Is(err, batchlog.ErrCorrupt) {
			f.damaged(err)
			known, err = math.MaxUint64, nil // it can't be said
		}
		if err != nil {
			return err
		}
		f.blobs[ref.Hash] = known
	}
	if known < id {
		p.What = fmt.Sprintf("the store does not know that commit %d refers to blob %s", id, ref)
		f.report.add(p)
	}
	if checked {
		return nil
	}
	f.report.Blobs++
	f.report.BlobBytes += ref.Size
	err = blobError(f.engine.blobs.Verify(f.ctx, blob.Ref{Hash: ref.Hash, Size: ref.Size}))
	var damage *batchlog.CorruptError
	switch {
	case errors.As(err, &damage):
		p.What, p.File, p.Offset = fmt.Sprintf("blob of commit %d: %v", id, err), damage.File, damage.Offset
		f.report.add(p)
	case errors.Is(err, batchlog.ErrNotFound):
		p.What = fmt.Sprintf("blob %s of commit %d is missing", ref, id)
		f.report.add(p)
	case err != nil && f.ctx.Err() != nil:
		return err
	case err != nil: // it alone can't be read: the other ops of the commit are compared
		p.What = fmt.Sprintf("blob %s of commit %d can't be read: %v", ref, id, err)
		f.report.add(p)
	}
	f.progress(Progress{Stage: "blobs", Done: f.report.BlobBytes, Unit: "bytes"})
	return nil
}
