package local

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A place is a directory outside of the database's own as the settings know it.
type place struct {
	Dir     string   `json:"dir"`               // as configured
	Accepts []string `json:"accepts,omitempty"` // the incarnations that its mark may have: see package owner
	Left    bool     `json:"left,omitempty"`    // to another database: what is there is read, and never changed
}

// stateLeft is the state of a directory that was left to another database. The others are those of package owner.
const stateLeft owner.State = batchlog.DirLeft

// places are the directories of segments beside the log's own: see [seglog.Places]. DIR, as configured, has the subdirectory DIR/UUID, which belongs to the
// database, and after an adoption DIR/UUID/EPOCH. Segments of before there were such may be in DIR itself; they stay there.
//
// A relative directory is within the log's own and goes wherever that goes, so nobody else has it. Any other one has a mark, which is looked at before anything
// in it is changed, and given its next incarnation before the first change after an opening: a command that only reads changes nothing outside.
type places struct {
	self     owner.Self
	settings *settingsFile
	logDir   string
	logger   *slog.Logger
	resolve  func(string) (string, error) // of symbolic links; nil: there are none

	mu struct {
		sync.Mutex
		known map[string]*known // by directory as configured
	}
}

// A known is what this opening knows of a directory.
type known struct {
	file    string        // that must be there, as the table of segments names it, relative to the directory; "": none. It is set before the log is open
	marking chan struct{} // held by who changes the mark; guards the fields below, but for found
	claimed string        // the incarnation that this opening has given it
	made    bool          // the subdirectory for what is made in this epoch is there
	found   owner.Finding // at last; guarded by the lock of places
}

func newPlaces(e *engine, s *settingsFile) *places {
	p := &places{settings: s, logDir: e.logDir(), logger: e.opts.Logger}
	p.mu.known = map[string]*known{}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	p.self = owner.Self{FS: e.opts.FS, Database: e.identity.uuid.String(), Epoch: uint64(e.identity.Epoch), Dir: e.name(), Host: host, Elsewhere: e.elsewhere}
	if e.opts.FS == vfs.Default {
		p.resolve = filepath.EvalSymlinks
	}
	return p
}

// name is the directory of the database as a mark names it: from wherever the program is started, if that is how the file system finds it.
func (e *engine) name() string {
	if abs, err := filepath.Abs(e.dir); err == nil {
		if _, err := e.opts.FS.Stat(abs); err == nil {
			return abs
		}
	}
	return e.dir
}

// split takes a directory of the table of segments apart: what was configured, and what follows it there.
func (p *places) split(dir string) (configured, rest string) {
	dir = filepath.Clean(dir)
	up, last := filepath.Dir(dir), filepath.Base(dir)
	switch uuid := p.self.Database; {
	case last == uuid:
		return up, uuid
	case filepath.Base(up) == uuid:
		return filepath.Dir(up), filepath.Join(uuid, last)
	}
	return dir, ""
}

// configured is the directory that stands in the settings for one of the table of segments, or for one as it was configured before.
func (p *places) configured(dir string) string {
	dir, _ = p.split(dir)
	if now, moved := p.settings.now().Moved[dir]; moved {
		return now
	}
	return dir
}

// within is the subdirectory of a configured directory that belongs to the database.
func (p *places) within(dir string) string { return filepath.Join(dir, p.self.Database) }

// line is the one in it, or itself, that has what is made in the epoch of the database: after an adoption there may be other files of the same names, of the line of
// history that was left.
func (p *places) line(dir string) string {
	if p.self.Epoch == 1 {
		return p.within(dir)
	}
	return filepath.Join(p.within(dir), strconv.FormatUint(p.self.Epoch, 10))
}

// at is where a configured directory is, or one within it.
func (p *places) at(dir string) string {
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(p.logDir, dir)
}

// Path is as seglog.Places says.
func (p *places) Path(dir string) string {
	if dir == "" {
		return p.logDir
	}
	_, rest := p.split(dir)
	return filepath.Join(p.at(p.configured(dir)), rest)
}

// own reports whether a configured directory is within the database's own, so that nobody else has it.
func (p *places) own(dir string) bool {
	if !filepath.IsLocal(dir) {
		return false
	}
	if p.resolve == nil {
		return true
	}
	to, err := p.resolve(p.at(dir))
	if err != nil {
		return true // it is not there
	}
	from, err := p.resolve(p.logDir)
	if err != nil {
		return true
	}
	rel, err := filepath.Rel(from, to)
	return err == nil && filepath.IsLocal(rel)
}

// know is what this opening knows of a configured directory.
func (p *places) know(dir string) *known {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.mu.known[dir]
	if k == nil {
		k = &known{marking: make(chan struct{}, 1)}
		p.mu.known[dir] = k
	}
	return k
}

// forget has a configured directory be none of the database's any more.
func (p *places) forget(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.known, dir)
}

// place is a configured directory as the settings know it.
func (s settings) place(dir string) place {
	if i := slices.IndexFunc(s.Places, func(q place) bool { return q.Dir == dir }); i >= 0 {
		return s.Places[i]
	}
	return place{Dir: dir}
}

// accepting is the configured directory that a mark with that incarnation is for; "": none.
func (s settings) accepting(incarnation string) string {
	i := slices.IndexFunc(s.Places, func(q place) bool { return incarnation != owner.None && slices.Contains(q.Accepts, incarnation) })
	if i < 0 {
		return ""
	}
	return s.Places[i].Dir
}

// knows reports whether the database has used a configured directory.
func (s settings) knows(dir string) bool {
	return slices.ContainsFunc(s.Places, func(q place) bool { return q.Dir == dir })
}

// with is the places of the settings, with q as it is now.
func (s settings) with(q place) []place {
	others := slices.DeleteFunc(slices.Clone(s.Places), func(old place) bool { return old.Dir == q.Dir })
	return append(others, q)
}

// look finds out how a configured directory is, and says so where that is new.
func (p *places) look(dir string) owner.Finding {
	k := p.know(dir)
	f := p.find(dir, k)
	p.mu.Lock()
	before := k.found
	k.found = f
	p.mu.Unlock()
	switch {
	case f.State == before.State:
	case f.State == owner.Taken:
		p.logger.Error("directory of segments belongs to another database now; nothing there is changed any more", "dir", p.at(p.within(dir)), "owner", f.Mark.Dir, "host", f.Mark.Host, "why", f.Err)
	case f.State != owner.Ready && f.State != stateLeft:
		p.logger.Warn("directory of segments can't be used now", "dir", p.at(p.within(dir)), "state", f.State, "why", f.Err)
	case f.State == owner.Ready && before.State != "":
		p.logger.Info("directory of segments is there again", "dir", p.at(p.within(dir)))
	}
	return f
}

func (p *places) find(dir string, k *known) owner.Finding {
	if p.own(dir) {
		_, err := p.self.FS.Stat(p.at(dir))
		switch {
		case disk.NotExist(err):
			return owner.Finding{State: owner.Missing, Err: errors.New("it is not there")}
		case err != nil:
			return owner.Finding{State: owner.Unreadable, Err: err}
		}
		return owner.Finding{State: owner.Ready}
	}
	q := p.settings.now().place(dir)
	if q.Left {
		return owner.Finding{State: stateLeft, Err: errors.New("it was left to another database")}
	}
	f := p.self.Look(p.at(p.within(dir)), q.Accepts)
	if other := p.settings.now().accepting(f.Mark.Incarnation); f.State == owner.Taken && other != "" && other != dir {
		return owner.Finding{State: owner.Unreadable, Mark: f.Mark, Err: fmt.Errorf("it is directory %s under another name: name it once", other)}
	}
	if f.State == owner.Ready && f.Mark == (owner.Mark{}) {
		// Nothing says that this is the directory, and not an empty one that its disk is mounted on.
		if missing := p.fileMissing(dir, k); missing != nil {
			return owner.Finding{State: owner.Missing, Err: missing}
		}
	}
	return f
}

// fileMissing reports why a directory can't be the one that the table of segments means.
func (p *places) fileMissing(dir string, k *known) error {
	if k.file == "" {
		return nil
	}
	name := filepath.Join(p.at(dir), k.file)
	if _, err := p.self.FS.Stat(name); err != nil {
		return fmt.Errorf("%s is not there: is its disk mounted? %w", name, err)
	}
	return nil
}

// Trouble is as seglog.Places says.
func (p *places) Trouble(dir string) error {
	dir = p.configured(dir)
	f := p.look(dir)
	if f.State == owner.Ready {
		return nil
	}
	return p.dirError(dir, "", f)
}

// outside is the configured directory, one that this opening knows, that has a file; "": none.
func (p *places) outside(file string) string {
	at, _ := p.split(filepath.Dir(file))
	p.mu.Lock()
	defer p.mu.Unlock()
	for dir := range p.mu.known {
		if at == p.at(dir) {
			return dir
		}
	}
	return ""
}

// explain is err, or, if it is about a file that can't be found because its directory is not as it should be, that.
func (p *places) explain(err error) error {
	var damage *batchlog.CorruptError
	if !errors.As(err, &damage) {
		return err
	}
	dir := p.outside(damage.File)
	if dir == "" {
		return err
	}
	if f := p.look(dir); f.State != owner.Ready {
		return p.dirError(dir, damage.File, f)
	}
	return err
}

func (p *places) dirError(dir, file string, f owner.Finding) error {
	err := f.Err
	if f.State == owner.Taken {
		err = p.ownerError(dir, f)
	}
	return &batchlog.DirError{Dir: p.at(p.within(dir)), File: file, State: string(f.State), Err: err}
}

func (p *places) ownerError(dir string, f owner.Finding) error {
	return &batchlog.OwnerError{Dir: p.at(p.within(dir)), Database: p.self.Dir, Owner: f.Mark.Dir, Host: f.Mark.Host, Since: f.Mark.Since, Err: f.Err}
}

// refresh looks at all directories anew, for whoever asks how they are.
func (p *places) refresh() {
	p.mu.Lock()
	dirs := slices.Collect(maps.Keys(p.mu.known))
	p.mu.Unlock()
	for _, dir := range dirs {
		p.look(dir)
	}
}

// status is how the directories were at last.
func (p *places) status() (all []batchlog.DirStatus) {
	kinds := map[string]string{}
	c := p.settings.config()
	for _, dir := range c.Warm {
		kinds[p.configured(dir)] = "warm"
	}
	for _, dir := range c.Dirs {
		kinds[p.configured(dir)] = "hot"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, dir := range slices.Sorted(maps.Keys(p.mu.known)) {
		k := p.mu.known[dir]
		st := batchlog.DirStatus{Dir: dir, Kind: kinds[dir], State: string(k.found.State)}
		if st.Kind == "" {
			st.Kind = "former"
		}
		if k.found.Err != nil {
			st.Reason = k.found.Err.Error()
		}
		all = append(all, st)
	}
	return all
}
