package seglog

import (
	"errors"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
)

// Places are the directories that segments may be in beside the log's own. A directory is as [Settings] name it, or as they named it once; "" is
// the log's own, about which nobody is asked.
type Places interface {
	// Path is where that directory is.
	Path(dir string) string
	// Begin is told of all directories that the table names, each with the name of a file that must be there, or "", before anything in one of them is read or
	// changed. Its error refuses to open the log.
	Begin(files map[string]string) error
	// Change returns nil if the log may put files there. It is asked anew whenever it is about to begin with one.
	Change(dir string) error
	// Keep returns nil if the log may go on with what it has there: write to segments that are not sealed, and remove files that it has made. It is asked anew
	// before. If the error says that the directory is another's, what was to be removed is forgotten.
	Keep(dir string) error
	// Trouble is why files that should be there may be not; nil: nothing is known that speaks against the directory.
	Trouble(dir string) error
}

// beginPlaces says which directories the table names. t is nil if there is none yet.
func (l *Log) beginPlaces(t *table) error {
	if l.opts.Places == nil {
		return nil
	}
	return l.opts.Places.Begin(files(t))
}

// files is a file for each directory that t names. The active segment may have another name yet.
func files(t *table) map[string]string {
	files := map[string]string{}
	if t == nil {
		return files
	}
	for s := range t.segs.all() {
		if s.state != active {
			files[s.dir] = s.name()
		} else if _, ok := files[s.dir]; !ok {
			files[s.dir] = ""
		}
	}
	for g := range t.limbo.all() {
		if _, ok := files[g.dir]; !ok {
			files[g.dir] = ""
		}
	}
	delete(files, "")
	return files
}

// Directories are those that the table of the log names beside the log's own, each with the name of a file that must be there, or "". The log need
// not be open.
func Directories(o Options) (map[string]string, error) {
	t, err := closedTable(o)
	return files(t), err
}

// ActiveDirectory is the one that has the segment which the log goes on in; "" is the log's own. The log need not be open.
func ActiveDirectory(o Options) (string, error) {
	t, err := closedTable(o)
	if err != nil || t == nil {
		return "", err
	}
	return t.active().dir, nil
}

// closedTable is the table of a log that need not be open, nil without one.
func closedTable(o Options) (*table, error) {
	l := &Log{opts: o}
	m, err := l.readManifest()
	if disk.NotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, _, err := l.readTable(m)
	return t, err
}

// anothers reports whether err says that a directory belongs to somebody else.
func anothers(err error) bool {
	var at *batchlog.DirError
	return errors.As(err, &at) && (at.State == batchlog.DirTaken || at.State == batchlog.DirLeft)
}

// Forget has the table of a log that is not open name no files that are still to be removed from these directories, among them what a move that was interrupted has put
// there: whoever has had the directories meanwhile may have files of the same names.
func Forget(o Options, dir func(string) bool) error {
	l := newLog(o)
	m, err := l.readManifest()
	if disk.NotExist(err) || err == nil && m.legacy != nil {
		return nil
	}
	if err != nil {
		return err
	}
	t, r, err := l.readTable(m)
	if err != nil {
		return err
	}
	l.table.Store(t)
	l.keep.number = r.head.number
	if l.keep.file, err = openTable(o.FS, o.Dir, r); err != nil {
		return err
	}
	for _, build := range []func(*table) edit{
		func(t *table) (e edit) {
			for s := range t.segs.all() {
				if s.moving != "" && dir(s.moving) {
					e = append(e, change{kind: kindUnmoved, seg: seg{first: s.first}})
				}
			}
			return e
		},
		func(t *table) (e edit) {
			for g := range t.limbo.all() {
				if dir(g.dir) {
					e = append(e, change{kind: kindRemoved, low: g.n, high: g.n})
				}
			}
			return e
		},
	} {
		if err = l.edit(build); err != nil {
			break
		}
	}
	return errors.Join(err, l.closeTable())
}

// sole reports whether a directory is the log's alone, so that what is in it and looks like the log's is.
func (l *Log) sole(dir string) bool {
	return dir == "" || l.opts.Places == nil || strings.Contains(dir, l.opts.Database.String())
}

// mayChange is Places.Change.
func (l *Log) mayChange(dir string) error {
	if dir == "" || l.opts.Places == nil {
		return nil
	}
	return l.opts.Places.Change(dir)
}

// mayKeep is Places.Keep.
func (l *Log) mayKeep(dir string) error {
	if dir == "" || l.opts.Places == nil {
		return nil
	}
	return l.opts.Places.Keep(dir)
}

// trouble is Places.Trouble.
func (l *Log) trouble(dir string) error {
	if dir == "" || l.opts.Places == nil {
		return nil
	}
	return l.opts.Places.Trouble(dir)
}

// missing is err, or, if that is about a file which can't be found because its directory is not as it should be, an error that says so.
func (l *Log) missing(dir, file string, err error) error {
	trouble := l.trouble(dir)
	var at *batchlog.DirError
	if errors.As(trouble, &at) {
		named := *at
		named.File = file
		return &named
	}
	if trouble != nil {
		return trouble
	}
	return err
}
