// Package local is an engine in a directory: a [batchlog.DB] whose log and store are files of this machine.
//
//	db, err := local.Open("data", nil)
//	if err != nil { … }
//	defer db.Close()
//
// One process at a time has a directory open. The directory holds
//
//	LOCK, OWNER     who has it open
//	clock           how much time has passed, by which the log is trimmed
//	ballast         space that is kept for a full disk
//	database        its uuid, epoch and format version
//	settings        how its commits are kept
//	log/main/       the log: manifest, segments, and the ops of chains; older ones may be in warm directories elsewhere
//	blobs/          large values, by the hash of their content
//	chains/         chains that are not committed yet
//	store/          what the log adds up to, and what commits have overwritten, in Pebble
//	undo/           a store at an earlier commit, while inverses of older commits are made
//
// The log is the truth: the store can be brought up from it, and is, after a crash.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are how a database is opened. The zero value, and nil, are the defaults.
type Options struct {
	// FS is where the files are; nil: the disk. vfs.NewMem() runs all in memory.
	FS vfs.FS
	// Logger is told what a person should know and no call returns; nil: nobody.
	Logger *slog.Logger
	// Now is the clock; nil: time.Now. Commits keep their order in time even when it goes back.
	Now func() time.Time
	// Uptime is a clock that nobody sets, by which segments age: how long the machine has run, and a name of that run, so that times of
	// one run can be compared; "" if none of this is known. nil: the machine's own with the machine's Now. With another Now there is none then, and that is believed, but for
	// jumps of many years.
	Uptime func() (boot string, up time.Duration)
	// MustExist makes it an error, an fs.ErrNotExist, if there is no database in the directory.
	MustExist bool
	// Log is the settings of the log of a database that is made; afterwards Configure changes them.
	Log batchlog.LogConfig
	// CacheBytes is the memory for blocks of the store, beside the memtables; 0: 64 MiB. More makes reads of a large store faster. Blocks also have
	// what the memtables leave of theirs.
	CacheBytes int64
	// MemTableBytes is how much the store gathers in memory before it writes it out; 0: 64 MiB. Up to four of these are
	// in memory at once, and are applied again when the database is opened after a crash.
	MemTableBytes int64
	// ChainBytes is the memory that a chain may use, more than once only for moments; 0: 32 MiB. At least 16 KiB.
	ChainBytes int64
	// ChainQuota bounds what chains that are not committed take on disk together, in bytes; 0: the disk does. Above, adding to them and
	// committing them is a *batchlog.LimitError.
	ChainQuota int64
	// InverseBytes bounds what is kept of one commit, where LogConfig.Undo asks for it, in bytes; 0: 1 GiB. A commit that has overwritten more
	// can't be taken back: Undo returns a *batchlog.InverseError.
	InverseBytes int64
	// Adopt has the database take over directories of segments outside of its own that belong to another one, where Open would refuse it with a
	// *batchlog.OwnerError: for a copy, or an older state that was put back, which is to go on in place of that other one. It begins the next epoch. Nothing in the directories
	// is removed, and where all is the database's already nothing is done. See Adopt, the function, for other ways.
	Adopt bool
	// Progress is told how far opening is when commits have to be applied again; nil: nobody.
	Progress func(applied, head batchlog.ID)
}

// A DB is a database in a directory. It is safe for concurrent use.
type DB struct {
	*batchlog.DB
	engine *engine
}

// Open opens the database in dir; without one it makes it, dir and its parents included. A second process, or a second
// Open in this one, gets a *batchlog.LockError. What a newer program wrote is a *batchlog.VersionError, damage that
// leaves the database without an acknowledged commit a *batchlog.CorruptError. A copy of a database, or an older state of one, whose directories of
// segments outside of its own belong to another one is a *batchlog.OwnerError: see [Adopt].
func Open(dir string, o *Options) (*DB, error) {
	e, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	return &DB{DB: e.db, engine: e}, nil
}

// Trim moves to warm directories what is past HotTTL, if there are any, and drops what the log need not keep any more. That is done in the background
// as well, within a minute; Trim does it now, and waits until the files that are not needed any more are removed, as far as they can be.
func (db *DB) Trim(ctx context.Context) error {
	err := db.engine.trim(ctx)
	return errors.Join(err, db.engine.log.Swept(ctx))
}

// TrustClock has retention count what it was in doubt of: the machine's clock is right, and the machine was off for all that time. See
// batchlog.ClockStatus. What is past its time by that goes with the next trim.
func (db *DB) TrustClock(context.Context) error {
	e := db.engine
	if e.closed.Load() {
		return batchlog.ErrClosed
	}
	e.clock.trust()
	return e.essential(func() error { return e.clock.save(e.opts.FS, e.dir) })
}

// Flush makes the store durable up to the head of the log, so that opening again has nothing to apply.
func (db *DB) Flush(ctx context.Context) error {
	if err := db.engine.lines.Hold(ctx, batchlog.ReadOptions{}); err != nil {
		return err
	}
	return db.engine.flush(ctx, db.engine.store.Applied())
}

// discard is the logger that nobody reads.
var discard = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))

func (o *Options) withDefaults() (Options, error) {
	var d Options
	if o != nil {
		d = *o
	}
	if d.FS == nil {
		d.FS = vfs.Default
	}
	if d.Logger == nil {
		d.Logger = discard
	}
	if d.Now == nil {
		d.Now = time.Now
		if d.Uptime == nil {
			d.Uptime = uptime
		}
	}
	if d.CacheBytes < 0 || d.MemTableBytes < 0 || d.MemTableBytes > 0 && d.MemTableBytes < 64<<10 {
		return d, fmt.Errorf("options: CacheBytes %d, MemTableBytes %d: not negative, and at least 64 KiB of memtable", d.CacheBytes, d.MemTableBytes)
	}
	if d.ChainBytes == 0 {
		d.ChainBytes = 32 << 20
	}
	if d.ChainBytes < 16<<10 || d.ChainBytes > 1<<30 || d.ChainQuota < 0 {
		return d, fmt.Errorf("options: ChainBytes %d, ChainQuota %d: 16 KiB to 1 GiB, and not negative", d.ChainBytes, d.ChainQuota)
	}
	if d.InverseBytes < 0 {
		return d, fmt.Errorf("options: InverseBytes %d is negative", d.InverseBytes)
	}
	var err error
	d.Log, err = checkConfig(d.Log)
	return d, err
}

// checkConfig is c with defaults, or why it can't be.
func checkConfig(c batchlog.LogConfig) (batchlog.LogConfig, error) {
	unsupported := func(what string) (batchlog.LogConfig, error) {
		return c, fmt.Errorf("log settings: %s: %w in this version", what, batchlog.ErrUnsupported)
	}
	if c.Name == "" {
		c.Name = batchlog.DefaultLog
	}
	c.Dirs, c.Warm = slices.Clone(c.Dirs), slices.Clone(c.Warm) // the caller may use its own again
	switch {
	case c.Name != batchlog.DefaultLog:
		return unsupported("another log than main")
	case c.ColdTTL != 0 || c.Cold != "":
		return unsupported("the cold tier")
	case c.BlobBytes < 0 || c.BlobBytes > 0 && c.BlobBytes < batchlog.MinBlobBytes:
		return c, fmt.Errorf("log settings: BlobBytes %d is not 0, nor at least %d", c.BlobBytes, batchlog.MinBlobBytes)
	case c.HotTTL < 0:
		return c, fmt.Errorf("log settings: HotTTL %s is negative", c.HotTTL)
	case slices.Contains(c.Warm, ""):
		return c, errors.New("log settings: Warm has a directory without a name")
	case c.WarmTTL != 0 && len(c.Warm) == 0:
		return c, fmt.Errorf("log settings: WarmTTL %s is set, but no Warm directory", c.WarmTTL)
	case c.WarmTTL != 0 && c.WarmTTL < c.HotTTL:
		return c, fmt.Errorf("log settings: WarmTTL %s is less than HotTTL %s; both count from a segment's last commit", c.WarmTTL, c.HotTTL)
	case c.SegmentBytes != 0 && (c.SegmentBytes < batchlog.MinSegmentBytes || c.SegmentBytes > batchlog.MaxSegmentBytes):
		return c, fmt.Errorf("log settings: SegmentBytes %d is not between %d and %d", c.SegmentBytes, batchlog.MinSegmentBytes, batchlog.MaxSegmentBytes)
	}
	return c, nil
}
