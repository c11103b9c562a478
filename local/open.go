package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/blob"
	"github.com/bytespace/batchlog/internal/commit"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/roster"
	"github.com/bytespace/batchlog/internal/seglog"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The names in a database's directory.
const (
	lockName   = "LOCK"
	ownerName  = "OWNER"
	storeName  = "store"
	logsName   = "log"
	chainsName = "chains"
	blobsName  = "blobs"
	undoName   = "undo"
)

// An engine puts the parts together. It owns one goroutine, trimLoop; each post-commit hook has one of its own, see followers.
type engine struct {
	opts     Options
	dir      string
	identity identity
	clock    *clock
	ballast  *ballast
	session  string // of this opening
	lock     io.Closer
	store    *store.Store
	log      *seglog.Log
	lines    *commit.Pipeline
	db       *batchlog.DB // the front over this engine
	hooks    *batchlog.Hooks
	blobs    *blob.Store
	recent   recentBlobs
	chains   staging

	settings    *settingsFile
	places      *places
	adopting    bool          // settings that are lost are made anew
	configuring chan struct{} // held by who changes settings
	backfill    backfilling
	blobBytes   atomic.Int64 // LogConfig.BlobBytes
	opened      batchlog.ID  // head of the log when it was opened
	sweeping    sync.Mutex   // held by who sweeps blobs
	sweeps      blobSweeps
	roster      *roster.Roster

	followers followers

	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	wg     sync.WaitGroup
	closed atomic.Bool
	ended  chan struct{} // closed when Close has ended
	err    error         // of Close

	flushing chan struct{}         // held by who flushes: the others find it done
	trimming chan struct{}         // held by who trims
	trimmed  atomic.Pointer[error] // what the last trim could not do
}

// newEngine is an engine of which nothing is open yet.
func newEngine(dir string, o Options) (_ *engine, err error) {
	if o.FS == vfs.Default {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, fmt.Errorf("directory of the database: %w", err)
		}
	}
	e := &engine{opts: o, dir: dir, session: rand.Text(), ended: make(chan struct{}), flushing: make(chan struct{}, 1), trimming: make(chan struct{}, 1), configuring: make(chan struct{}, 1)}
	e.clock = newClock(&e.opts)
	e.backfill.hold.Store(math.MaxUint64)
	e.chains.begin()
	e.recent = newRecentBlobs()
	e.sweeps = blobSweeps{dead: map[blob.Hash]batchlog.ID{}, some: sweepSome}
	return e, nil
}

// openDir takes the directory, and learns which database it holds and how that is kept.
func (e *engine) openDir() (err error) {
	if err := e.lockDir(); err != nil {
		return err
	}
	e.ballast = openBallast(e.opts.FS, e.dir)
	if e.identity, err = openIdentity(e.opts.FS, e.dir); err != nil {
		return err
	}
	if !e.identity.Begun { // else it is there, or its disk is not
		if err := disk.MakeDir(e.opts.FS, e.logDir()); err != nil {
			return err
		}
	}
	return e.openSettings()
}

// open opens a database. If the disk is full the ballast is given up, when there is one.
func open(dir string, opts *Options) (*engine, error) {
	var released bool
	e, err := openOnce(dir, opts, &released)
	if err != nil && released {
		return openOnce(dir, opts, &released)
	}
	return e, err
}

// openOnce opens in the order of the line that a batch travels; Close closes in the reverse.
func openOnce(dir string, opts *Options, released *bool) (_ *engine, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := newEngine(dir, o)
	if err != nil {
		return nil, err
	}
	o, dir = e.opts, e.dir
	e.adopting = o.Adopt
	defer func() {
		if err != nil {
			*released = e.ballast != nil && full(err) && e.ballast.release()
			err = errors.Join(err, e.letGo())
		}
	}()
	if err := e.openDir(); err != nil {
		return nil, err
	}
	if o.Adopt {
		if err := e.adopt(Adoption{}); err != nil {
			return nil, err
		}
	}
	if e.store, err = store.Open(store.Options{
		FS: o.FS, Dir: filepath.Join(dir, storeName), Staging: filepath.Join(dir, chainsName), Logger: o.Logger, CacheBytes: o.CacheBytes, MemTableBytes: o.MemTableBytes,
		InverseLimit: o.InverseBytes, Rationed: e.ballast.rationed,
		Beside: func(id batchlog.ID) (batchlog.IDRange, string) { return e.log.Beside(id) },
	}); err != nil {
		return nil, err
	}
	e.clock.open(o.FS, dir)
	if e.log, err = seglog.Open(seglog.Options{
		FS: o.FS, Dir: e.logDir(), Database: e.identity.uuid, Epoch: e.identity.Epoch, Logger: o.Logger, NewUUID: newUUID,
		Settings: e.places.log(), Places: e.places, Begun: e.identity.Begun,
		Passed: e.clock.passed, Started: e.clock.start, Reserve: e.reserveLog,
	}, e.store.Applied()); err != nil {
		return nil, fmt.Errorf("open log: %w", e.places.explain(err))
	}
	e.noteBegun()
	e.blobBytes.Store(int64(e.config().BlobBytes))
	e.store.SetUndo(e.config().Undo)
	if e.blobs, err = blob.Open(blob.Options{FS: o.FS, Dir: filepath.Join(dir, blobsName)}); err != nil {
		return nil, fmt.Errorf("open blobs: %w", chainError(err))
	}
	if err := e.replay(); err != nil {
		return nil, err
	}
	e.opened = e.log.Head()
	e.lines = commit.New(commit.Options{Log: e.log, Store: e.store, Now: o.Now, LastTime: e.log.LastTime()})
	e.db = batchlog.New(e)
	e.hooks = batchlog.NewHooks(e.db)
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.roster = roster.New(e.db, parts{e}, e.ctx.Done())
	if err := e.roster.Load(e.ctx); err != nil {
		e.stop()
		e.lines.Close()
		return nil, fmt.Errorf("read the tasks: %w", err)
	}
	e.restoreBallast()
	left := e.leftScratch()
	e.wg.Go(func() {
		e.clearScratch(left)
		e.trimLoop(e.ctx)
	})
	return e, nil
}

// replay brings the store up to the log. On a full disk that may have to wait for space, which the ballast then gives; when even so nothing goes on the
// opening has failed.
func (e *engine) replay() error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var stuck bool
	wg.Go(func() {
		for applied, since := e.store.Applied(), time.Now(); ; {
			select {
			case <-done:
				return
			case <-time.After(flushPoll):
			}
			if now := e.store.Applied(); now != applied || !e.store.NoSpace() {
				applied, since = now, time.Now()
				continue
			}
			if e.ballast.release() {
				since = time.Now()
			}
			if time.Since(since) > replayPatience {
				stuck = true
				_ = e.store.Close() // letGo does, too; it ends what waits
				return
			}
		}
	})
	err := commit.Replay(context.Background(), e.log, e.store, e.opts.Progress)
	close(done)
	wg.Wait()
	if stuck {
		return fmt.Errorf("%w to apply the log; applied is commit %d: %w", batchlog.ErrNoSpace, e.store.Applied(), err)
	}
	return err
}

// replayPatience is how long opening waits for space.
const replayPatience = 2 * time.Second

// Close is as batchlog.Engine says. What was acknowledged is in the log; the store is made durable too, unless the
// disk is full or has failed, so that the next Open has nothing to apply. It waits for what has its id to be written, for the backlog to be applied, which is
// bounded, and hookPatience for post-commit hooks; never for functions of users, nor for who stands in line to write. Where the disk makes it long the logger is told.
func (e *engine) Close() error {
	if e.closed.Swap(true) {
		<-e.ended
		return e.err
	}
	defer close(e.ended)
	slow := time.AfterFunc(closePatience, func() {
		e.opts.Logger.Warn("closing takes long: what has its id is written, and applied to the store", "head", e.log.Head(), "applied", e.lines.Applied(), "backlog bytes", e.lines.Backlog())
	})
	defer slow.Stop()
	e.stop()
	left := e.followers.close()
	e.wg.Wait()
	e.trimming <- struct{}{} // it ends with e.ctx, as does the backfill
	defer func() { <-e.trimming }()
	e.backfill.Lock()
	defer e.backfill.Unlock()
	e.configuring <- struct{}{} // what is written after this, whoever opens the database next would not expect
	defer func() { <-e.configuring }()
	e.lines.Close()
	if e.store.Failed() == nil && !e.store.NoSpace() {
		if err := errors.Join(e.flush(context.Background(), e.store.Applied()), e.keepTaken(context.Background())); err != nil {
			e.opts.Logger.Warn("store not made durable; the next open applies the rest of the log again", "err", err)
		}
	}
	if err := e.clock.save(e.opts.FS, e.dir); err != nil {
		e.opts.Logger.Warn("how much time has passed since it was last written down is not counted, should the machine start again", "err", err)
	}
	e.err = errors.Join(e.letGo(), left)
	return e.err
}

// closePatience is how long Close may take before the logger is told.
const closePatience = 5 * time.Second

// letGo closes what is open.
func (e *engine) letGo() error {
	var errs []error
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	if e.lock != nil {
		if err := e.opts.FS.Remove(filepath.Join(e.dir, ownerName)); err != nil && !disk.NotExist(err) {
			errs = append(errs, err)
		}
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

var _ interface {
	batchlog.Engine
	batchlog.Getter
	batchlog.Queuer
	batchlog.Chainer
	batchlog.Blobber
	batchlog.Undoer
	batchlog.Configurer
	batchlog.Statuser
} = (*engine)(nil)

// newUUID is a random UUID.
func newUUID() segment.UUID { return segment.UUID(randomUUID()) }
