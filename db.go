package batchlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// A DB is a database: spaces of keys, and the log of all commits. It is the front over an [Engine]; local.Open
// gives one over a directory. It is safe for concurrent use.
type DB struct {
	engine Engine
	getter Getter // the engine, if it reads single keys without a view
	root   *Space

	spaces struct { // the spaces that tails have met, by closed path: an op needs one, a commit has many
		sync.RWMutex
		known map[string]*Space
	}
}

const (
	// spacesKnown bounds DB.spaces. When it is reached, one space in spacesKept that is met anew takes the place of some other: of many spaces that
	// are met in turn most of those that there is room for stay, and spaces that are not met any more give way.
	spacesKnown = 4096
	spacesKept  = 16
	// spaceKnownBytes bounds the paths in DB.spaces.
	spaceKnownBytes = 512
)

// New is the database over e. It is for those who write engines.
func New(e Engine) *DB {
	db := &DB{engine: e}
	db.getter, _ = e.(Getter)
	db.root = &Space{db: db, prefix: wire.RootPath}
	db.spaces.known = map[string]*Space{}
	return db
}

// Root is the space that all others are within.
func (db *DB) Root() *Space { return db.root }

// Space is the space at path: Space("users", "eu") is within Space("users"). See [Space.Space].
func (db *DB) Space(path ...any) *Space { return db.root.Space(path...) }

// Write appends b to the log as one commit and returns its id.
//
// If the error is nil, all of b is durable in the log, and every read that starts from now on sees it. If not,
// none of it is there or will be. Only ErrUncertain leaves that open: the disk or the connection failed
// under way. Write the same b with its Token again then: the log knows a batch by its token and keeps it once.
//
// ctx bounds the wait for a turn. A batch that has its id runs to the end. A batch without ops is a commit too.
//
// Other errors are *LimitError for what is too large, ErrNoSpace while the disk is full (the batch has
// no id and is nowhere), ErrClosed, and, from a failed sync until the database is opened again, ErrReadOnly.
func (db *DB) Write(ctx context.Context, b *Batch) (ID, error) {
	p, err := b.seal(db)
	if err != nil {
		return 0, err
	}
	return db.engine.Commit(ctx, p)
}

// Head returns the id of the newest durable commit, 0 before the first.
func (db *DB) Head(ctx context.Context) (ID, error) { return db.engine.Head(ctx) }

// Configure sets how the commits of spaces are kept, and of all spaces within them. It is durable when it returns; if it fails all is as before, but after an
// [ErrUncertain], which leaves open what holds when the database is opened next. A directory that belongs to another database is an *[OwnerError]. No
// spaces means the root: all that isn't configured otherwise. See [DB.PlanConfigure] for what it would do.
func (db *DB) Configure(ctx context.Context, log LogConfig, spaces ...*Space) error {
	_, err := db.configure(ctx, log, spaces, false)
	return err
}

// PlanConfigure says what [DB.Configure] would change, and changes nothing.
func (db *DB) PlanConfigure(ctx context.Context, log LogConfig, spaces ...*Space) (Plan, error) {
	return db.configure(ctx, log, spaces, true)
}

func (db *DB) configure(ctx context.Context, log LogConfig, spaces []*Space, dryRun bool) (Plan, error) {
	c, ok := db.engine.(Configurer)
	if !ok {
		return Plan{}, fmt.Errorf("configure a log on this engine: %w", ErrUnsupported)
	}
	if len(spaces) == 0 {
		spaces = []*Space{db.root}
	}
	var paths [][]byte
	for _, s := range spaces {
		if err := db.owns(s); err != nil {
			return Plan{}, err
		}
		paths = append(paths, s.prefix)
	}
	return c.Configure(ctx, log, paths, dryRun)
}

// Status returns how the database is.
func (db *DB) Status(ctx context.Context) (Status, error) {
	if s, ok := db.engine.(Statuser); ok {
		return s.Status(ctx)
	}
	head, err := db.engine.Head(ctx)
	return Status{Head: head}, err
}

// Close ends all that waits or follows with ErrClosed, writes that have no id yet included, and closes the database. It waits for what has its id, not for functions of
// users. It is safe to call it twice.
func (db *DB) Close() error { return db.engine.Close() }

// owns reports why s can't be used with db.
func (db *DB) owns(s *Space) error {
	switch {
	case s == nil:
		return fmt.Errorf("nil space: %w", ErrPermission)
	case s.err != nil:
		return s.err
	case s.db != db:
		return fmt.Errorf("space %s of another database: %w", s, ErrPermission)
	}
	return nil
}

var errPath = errors.New("malformed path of a space")

// spaceOf is the space with this closed path, which is copied.
func (db *DB) spaceOf(path []byte) (*Space, error) {
	db.spaces.RLock()
	s := db.spaces.known[string(path)]
	db.spaces.RUnlock()
	if s != nil {
		return s, nil
	}
	if _, n, err := bytewise.DecodeArrayPrefix(wire.Typed(path)); err != nil || n != len(wire.Typed(path)) {
		return nil, errPath // bytes from elsewhere: what has an end need not have values
	}
	if err := checkPath(path); err != nil {
		return nil, err
	}
	s = &Space{db: db, prefix: append([]byte(nil), path...)}
	db.remember(s)
	return s, nil
}

// remember adds a space to those that are known, if it is its turn.
func (db *DB) remember(s *Space) {
	if len(s.prefix) > spaceKnownBytes {
		return
	}
	db.spaces.RLock()
	full := len(db.spaces.known) >= spacesKnown
	db.spaces.RUnlock()
	if full && rand.IntN(spacesKept) > 0 {
		return
	}
	db.spaces.Lock()
	defer db.spaces.Unlock()
	if len(db.spaces.known) >= spacesKnown {
		for other := range db.spaces.known { // any one
			delete(db.spaces.known, other)
			break
		}
	}
	db.spaces.known[string(s.prefix)] = s
}
