// Package disk is what everyone here who keeps files needs of a file system: names that are durable, files that are
// replaced whole, and what an error of the disk means.
package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// NotExist reports whether err says that a file is not there.
func NotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// denied reports whether err says that somebody may not do that.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// Full reports whether err says that the disk, or a quota on it, is full.
func Full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// MakeDir makes a directory and its parents, and their names durable. It writes nothing if the directory is there, so that
// it works on a full disk, too.
func MakeDir(fs vfs.FS, dir string) error {
	if err := makeDir(fs, filepath.Clean(dir)); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}

func makeDir(fs vfs.FS, dir string) error {
	parent := filepath.Dir(dir)
	if dir == parent {
		return nil
	}
	_, err := fs.Stat(dir)
	if err == nil {
		// Somebody who was killed, or whose sync failed, may have made it just before. Who may not look into the parent has not.
		if err = SyncDir(fs, parent); denied(err) {
			err = nil
		}
		return err
	}
	if !NotExist(err) {
		return err
	}
	// One after the other: of those that are there only the last one may not be durable.
	if err := makeDir(fs, parent); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return SyncDir(fs, parent)
}

// SyncDir makes the names in a directory durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// Remove removes a file that may be there.
func Remove(fs vfs.FS, name string) error {
	if err := fs.Remove(name); err != nil && !NotExist(err) {
		return err
	}
	return nil
}

// ReadFile is the content of a file.
func ReadFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	return text, errors.Join(err, f.Close())
}

// WriteFile makes a file with that content durable, but not its name.
func WriteFile(fs vfs.FS, name string, content []byte) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(content)) // what is written is the file's from then on: it may change it
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// TempSuffix ends the name of a file that is to replace the one without it. One that a crash has left is nobody's.
const TempSuffix = ".tmp"

// ReplaceFile makes content that of a file, which a crash leaves whole: as it was, or as it is to be. If it fails, uncertain says that
// either may be found after a crash; else it is as it was.
func ReplaceFile(fs vfs.FS, name string, content []byte) (uncertain bool, err error) {
	temp := name + TempSuffix
	if err := WriteFile(fs, temp, content); err != nil {
		_ = Remove(fs, temp) // on a full disk it takes what little is left; should it stay it is nobody's
		return false, err
	}
	if err := fs.Rename(temp, name); err != nil {
		return true, err
	}
	return true, SyncDir(fs, filepath.Dir(name))
}
