package local

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
)

// elsewhere is as owner.Self says.
func (e *engine) elsewhere(dir, incarnation string) (bool, error) {
	fs := e.opts.FS
	same, err := e.sameDir(dir)
	if same || err != nil {
		return false, err
	}
	name := filepath.Join(dir, identityName)
	text, err := disk.ReadFile(fs, name)
	if disk.NotExist(err) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	id, err := parseIdentity(text, name)
	if err != nil || id.uuid != e.identity.uuid {
		return false, err
	}
	s := &settingsFile{fs: fs, name: filepath.Join(dir, settingsName)}
	text, err = disk.ReadFile(fs, s.name)
	if disk.NotExist(err) {
		return false, nil // it is of before there were marks: it has given none
	}
	if err == nil {
		err = s.parse(text)
	}
	return s.now().accepting(incarnation) != "", err
}

// sameDir reports whether dir is another name of the database's own directory: then the word that this opening has left there is in both.
func (e *engine) sameDir(dir string) (bool, error) {
	there, err := disk.ReadFile(e.opts.FS, filepath.Join(dir, ownerName))
	if disk.NotExist(err) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !strings.Contains(string(there), e.session) {
		if here, err := disk.ReadFile(e.opts.FS, filepath.Join(e.dir, ownerName)); err != nil || !strings.Contains(string(here), e.session) {
			return false, errors.Join(err, errors.New("there was no room for a word who has the database open"))
		}
		return false, nil
	}
	return true, nil
}

// lockOther has nobody open the database in that directory until unlock is called, if it is another one and can be seen from here.
func (e *engine) lockOther(dir string) (unlock func(), err error) {
	nothing := func() {}
	if dir == "" {
		return nothing, nil
	}
	if same, err := e.sameDir(dir); same || err != nil {
		return nothing, err
	}
	if _, err := e.opts.FS.Stat(filepath.Join(dir, lockName)); err != nil {
		return nothing, nil //nolint:nilerr // there is none to be seen
	}
	lock, err := e.opts.FS.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nothing, &batchlog.LockError{Dir: dir, Holder: holder(e.opts.FS, dir), Err: err}
	}
	return func() { _ = lock.Close() }, nil
}
