// Package owner says whom a directory outside of a database's own belongs to, so that nobody else changes what is in it.
//
// A database keeps what it has in such a directory in a subdirectory by its UUID, which also holds a document, OWNER. That says in which directory
// of the file system the database is, and holds an incarnation: a random word that the database notes in its own directory, too, and that
// changes before anything outside is changed for the first time after an opening. So a copy of the database, or an older state of it that was put back, is
// told from the one that goes on: it does not know the word that is outside now, or it is in another place than the one that does.
package owner

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Name is that of the document in a directory that says whose it is; see [disk.AppendDocument]:
//
//	batchlog owner 1 5d1c9a3f
//	{ "database": "…", "epoch": 1, "incarnation": "…", "dir": "/srv/data", "host": "…", "since": "2026-11-22T18:45:53Z" }
const (
	Name    = "OWNER"
	kind    = "owner"
	version = 1
)

// A Mark is what a directory says of its owner. The zero Mark is that of one that says nothing.
type Mark struct {
	Database    string    `json:"database"` // UUID
	Epoch       uint64    `json:"epoch"`    // that the database was in
	Incarnation string    `json:"incarnation"`
	Dir         string    `json:"dir"` // of the database, on that host
	Host        string    `json:"host"`
	Since       time.Time `json:"since"`
}

// None is the incarnation of a directory without a mark. Who accepts it takes a directory without one for its own.
const None = ""

// A State is what a directory is to a database.
type State string

// The states of a directory: see batchlog.DirStatus.
const (
	Ready      State = "ready"
	Missing    State = "missing"
	Unmarked   State = "unmarked" // it says nothing of an owner, or nothing that can be read
	Unreadable State = "unreadable"
	Taken      State = "taken" // by another database, or by another copy or a later state of this one
)

// A Finding is what was found in a directory.
type Finding struct {
	State State
	Mark  Mark  // the zero one unless it could be read
	Moved bool  // it is ready, and the mark says where the database was before
	Err   error // why it is not ready
}

// The reasons for a directory to be taken.
var (
	ErrOther = errors.New("it belongs to another database")
	ErrNewer = errors.New("it belongs to a later state, or to another copy, of the database")
	ErrCopy  = errors.New("it belongs to the database that this one is a copy of")
)

// A Self is a database that asks for its directories.
type Self struct {
	FS       vfs.FS
	Database string // UUID
	Epoch    uint64
	Dir      string // of the database
	Host     string
	// Elsewhere reports whether there is a database in that other directory that accepts the incarnation, and that is not this one seen under another name.
	Elsewhere func(dir, incarnation string) (bool, error)
}

// Look finds out what a directory is to the database, which accepts these incarnations for it. It changes nothing.
func (s *Self) Look(dir string, accepts []string) Finding {
	m, err := read(s.FS, dir)
	switch {
	case errors.Is(err, errUnmarked):
		if errors.Is(err, errDamaged) || !slices.Contains(accepts, None) {
			return Finding{State: Unmarked, Err: err}
		}
		return Finding{State: Ready}
	case disk.NotExist(err):
		return Finding{State: Missing, Err: errMissing}
	case err != nil:
		return Finding{State: Unreadable, Err: err}
	case m.Database != s.Database:
		return Finding{State: Taken, Mark: m, Err: ErrOther}
	case !slices.Contains(accepts, m.Incarnation):
		return Finding{State: Taken, Mark: m, Err: ErrNewer}
	case m.Dir == s.Dir:
		return Finding{State: Ready, Mark: m}
	}
	other, err := s.Elsewhere(m.Dir, m.Incarnation)
	switch {
	case err != nil:
		return Finding{State: Unreadable, Mark: m, Err: fmt.Errorf("it belongs to the database in %s, and whether that is still there can't be told: %w", m.Dir, err)}
	case other:
		return Finding{State: Taken, Mark: m, Err: ErrCopy}
	}
	return Finding{State: Ready, Mark: m, Moved: true}
}

// Mark makes the directory, which must be there, that of the database, durably. If it fails, uncertain says that the mark may have changed all the same.
func (s *Self) Mark(dir, incarnation string, now time.Time) (uncertain bool, err error) {
	body, err := json.Marshal(Mark{Database: s.Database, Epoch: s.Epoch, Incarnation: incarnation, Dir: s.Dir, Host: s.Host, Since: now.UTC().Truncate(time.Second)})
	if err != nil {
		return false, err
	}
	if uncertain, err := disk.ReplaceFile(s.FS, filepath.Join(dir, Name), disk.AppendDocument(nil, kind, version, body)); err != nil {
		return uncertain, fmt.Errorf("mark directory %s: %w", dir, err)
	}
	return false, nil
}

var (
	errMissing  = errors.New("it is not there: is its disk mounted?")
	errUnmarked = errors.New("it has no file " + Name + ", so it is not known to belong to the database")
	errDamaged  = fmt.Errorf("its file "+Name+" is damaged: %w", errUnmarked)
)

// read is the mark of a directory.
func read(fs vfs.FS, dir string) (m Mark, err error) {
	name := filepath.Join(dir, Name)
	text, err := disk.ReadFile(fs, name)
	if disk.NotExist(err) {
		if _, err := fs.Stat(dir); err != nil {
			return m, err
		}
		return m, errUnmarked
	}
	if err != nil {
		return m, err
	}
	v, body, err := disk.ParseDocument(text, kind)
	if err == nil && v > version {
		return m, fmt.Errorf("%s has format version %d, this program knows versions up to %d: use a newer batchlog", name, v, version)
	}
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err == nil && (m.Database == "" || m.Incarnation == None || m.Dir == "") {
		err = errors.New("something is left out")
	}
	if err != nil {
		return Mark{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return m, nil
}

// A Claim is what it takes to give a directory its next incarnation.
type Claim struct {
	Found   Finding  // in the directory, which must be there
	Accepts []string // incarnations that the database accepts for it
	Next    string   // a word that was never used before
	Now     time.Time
	// Keep makes durable which incarnations the database accepts from now on, in its own directory.
	Keep func(accepts []string) error
}

// Claim gives a directory its next incarnation, and returns which ones are accepted for it from then on. Who asks has seen to it that nobody else may have it.
//
// First the database accepts the next one as well, then the directory has it, then nothing else is accepted: whatever step is interrupted or
// fails, and whatever a crash finds of it, the directory has a mark that the database accepts.
func (s *Self) Claim(dir string, c Claim) (accepts []string, err error) {
	both := append(slices.Clone(c.Accepts), c.Next)
	if err := c.Keep(both); err != nil {
		return c.Accepts, err // if it is kept all the same, that does no harm
	}
	if uncertain, err := s.Mark(dir, c.Next, c.Now); err != nil {
		if uncertain {
			return both, err
		}
		return c.Accepts, err
	}
	only := []string{c.Next}
	if c.Found.Mark == (Mark{}) {
		// The directory had no mark: if others are accepted they are those of a disk that may come back to this place.
		only = slices.DeleteFunc(both, func(incarnation string) bool { return incarnation == None })
	}
	if c.Keep(only) != nil {
		only = both // which is kept, and does no harm either
	}
	return only, nil
}
