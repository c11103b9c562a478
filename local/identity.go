package local

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file "database" says which database a directory holds; see [disk.AppendDocument]:
//
//	batchlog database 1 5d1c9a3f
//	{ "uuid": "…", "epoch": 1, "made": "2026-11-22T18:45:53Z", "begun": true }
//
// The number is the format of the whole directory. It is 1; a program that finds a higher one refuses.
const (
	identityName = "database"
	identityKind = "database"
	formatNewest = 1
)

type identity struct {
	UUID  string         `json:"uuid"`
	Epoch batchlog.Epoch `json:"epoch"`
	Made  time.Time      `json:"made"`
	Begun bool           `json:"begun,omitempty"` // there is a log: if its files are gone, none is begun in its place

	uuid segment.UUID
}

// openIdentity reads the identity of the database in dir, or gives it one if it is new.
func openIdentity(fs vfs.FS, dir string) (identity, error) {
	name := filepath.Join(dir, identityName)
	text, err := disk.ReadFile(fs, name)
	if err == nil {
		return parseIdentity(text, name)
	}
	if !disk.NotExist(err) {
		return identity{}, err
	}
	if _, err := fs.Stat(filepath.Join(dir, logsName)); err == nil {
		return identity{}, &batchlog.CorruptError{File: name, Err: errors.New("the file is missing, but there is a log: restore it from a copy")}
	}
	uuid := newUUID()
	id := identity{UUID: uuid.String(), Epoch: 1, Made: time.Now().UTC().Truncate(time.Second), uuid: uuid}
	if err := writeIdentity(fs, name, id); err != nil {
		return identity{}, fmt.Errorf("write %s: %w", name, err)
	}
	return id, nil
}

// noteBegun has the identity say that there is a log. Without that the database is as well as it was with older programs.
func (e *engine) noteBegun() {
	if e.identity.Begun {
		return
	}
	id := e.identity
	id.Begun = true
	if err := writeIdentity(e.opts.FS, filepath.Join(e.dir, identityName), id); err != nil {
		e.opts.Logger.Warn("not noted that the log was begun; it will be when the database is opened again", "err", err)
		return
	}
	e.identity = id
}

func parseIdentity(text []byte, name string) (identity, error) {
	damaged := func(err error) (identity, error) { return identity{}, &batchlog.CorruptError{File: name, Err: err} }
	version, body, err := disk.ParseDocument(text, identityKind)
	if err != nil {
		return damaged(err)
	}
	if version > formatNewest {
		return identity{}, &batchlog.VersionError{What: name, Version: version, Known: formatNewest}
	}
	var id identity
	if err := json.Unmarshal(body, &id); err != nil {
		return damaged(err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(id.UUID, "-", ""))
	if err != nil || len(b) != len(id.uuid) {
		return damaged(fmt.Errorf("uuid %q", id.UUID))
	}
	copy(id.uuid[:], b)
	return id, nil
}

func writeIdentity(fs vfs.FS, name string, id identity) error {
	body, err := json.Marshal(id)
	if err != nil {
		return err
	}
	_, err = disk.ReplaceFile(fs, name, disk.AppendDocument(nil, identityKind, formatNewest, body))
	return err
}

// nextEpoch begins a line of history, durably, in an epoch after that of the database and after another one.
func (e *engine) nextEpoch(other uint64) error {
	next := e.identity
	next.Epoch = max(next.Epoch, batchlog.Epoch(other)) + 1
	name := filepath.Join(e.dir, identityName)
	if err := writeIdentity(e.opts.FS, name, next); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	e.identity = next
	e.places.self.Epoch = uint64(next.Epoch)
	return nil
}

// randomUUID is a version 4 UUID.
func randomUUID() [16]byte {
	var u [16]byte
	if _, err := rand.Read(u[:]); err != nil {
		panic("batchlog: no randomness: " + err.Error()) // documented never to happen
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// lockHeld reports whether err says that another one has a lock, and not that the file can't be opened.
func lockHeld(err error) bool {
	var path *fs.PathError
	if errors.As(err, &path) {
		return false
	}
	var errno syscall.Errno
	return !errors.As(err, &errno) || errno == syscall.EAGAIN || errno == syscall.EACCES || runtime.GOOS == "windows"
}

// lockDir takes the directory for this process, and leaves word who has it.
func (e *engine) lockDir() error {
	files := e.opts.FS
	if e.opts.MustExist {
		if _, err := files.Stat(filepath.Join(e.dir, identityName)); err != nil {
			return fmt.Errorf("no database in %s: %w", e.dir, err)
		}
	}
	if err := disk.MakeDir(files, e.dir); err != nil {
		return err
	}
	owner := filepath.Join(e.dir, ownerName)
	lock, err := files.Lock(filepath.Join(e.dir, lockName))
	if err != nil {
		if !lockHeld(err) {
			return fmt.Errorf("lock %s: %w", e.dir, chainError(err))
		}
		return &batchlog.LockError{Dir: e.dir, Holder: holder(files, e.dir), Err: err}
	}
	e.lock = lock
	f, err := files.Create(owner, vfs.WriteCategoryUnspecified)
	if err != nil {
		e.opts.Logger.Warn("no word left who has the database open", "err", err) // it is open all the same
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	_, err = fmt.Fprintf(f, "process %d (%s) on %s since %s\n%s\n", os.Getpid(), filepath.Base(os.Args[0]), host, time.Now().Format(time.RFC3339), e.session)
	if err := errors.Join(err, f.Close()); err != nil {
		e.opts.Logger.Warn("no word left who has the database open", "err", err)
	}
	return nil
}

// holder is who has the database in a directory open, as far as it says so.
func holder(fs vfs.FS, dir string) string {
	if text, err := disk.ReadFile(fs, filepath.Join(dir, ownerName)); err == nil && len(text) > 0 {
		who, _, _ := strings.Cut(string(text), "\n")
		return who
	}
	return "another process"
}
