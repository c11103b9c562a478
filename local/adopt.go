package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/bytespace/batchlog/internal/seglog"
)

// An Adoption says what becomes of directories of segments that belong to another database: as a rule because this one is a copy of that, or an older state of it
// that was put back. The zero Adoption takes all of them.
type Adoption struct {
	// Take are directories that are this database's from now on. The other one is refused then, as this one was.
	Take []string
	// Leave are directories that stay the other one's. What the log has there is read as long as it is there, and nothing is changed: whoever wants segments to go
	// warm configures another one.
	Leave []string
	// Moved has directories by what they were: what the log had there is where it says now, as it was copied there, or its disk is mounted there.
	Moved map[string]string
}

// Adopt settles whom the directories of segments outside of a database's own belong to, where Open refuses it with a *batchlog.OwnerError, or where its
// directories are in other places now. Without any it does nothing. dir is not open meanwhile, and nor may the other database be.
//
// A database whose settings are lost is given new ones, those of o.Log.
//
// What this database writes from then on is a line of history of its own, in its next epoch. Nothing that is in the directories is removed: what
// the other one has put there, and this one does not know, stays.
func Adopt(dir string, o *Options, a Adoption) (dirs []batchlog.DirStatus, err error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	opts.MustExist = true
	e, err := newEngine(dir, opts)
	if err != nil {
		return nil, err
	}
	e.adopting = true
	defer func() { err = errors.Join(err, e.letGo()) }()
	if err := e.openDir(); err != nil {
		return nil, err
	}
	if err := e.adopt(a); err != nil {
		return nil, err
	}
	e.places.refresh()
	return e.places.status(), nil
}

// An adoption is an Adoption that is carried out.
type adoption struct {
	*engine
	known []string // all directories of the database, as configured
	take  map[string]owner.Finding
	leave []string
	moved map[string]string
	line  bool   // it begins a line of history
	epoch uint64 // the newest that was found in the directories
}

// adopt does what a says, or nothing of it if something speaks against that.
func (e *engine) adopt(a Adoption) error {
	files, err := seglog.Directories(e.logOptions())
	if err != nil {
		return fmt.Errorf("directories of the log: %w", err)
	}
	d := &adoption{engine: e, known: e.places.learn(files), take: map[string]owner.Finding{}, moved: map[string]string{}}
	if err := d.plan(a); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	others := map[string]bool{}
	for _, f := range d.take {
		others[f.Mark.Dir] = true
	}
	for other := range others {
		unlock, err := e.lockOther(other)
		if err != nil {
			return fmt.Errorf("adopt what belongs to another database: %w", err)
		}
		defer unlock()
	}
	if d.line {
		if err := e.nextEpoch(d.epoch); err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
	}
	if err := seglog.Forget(d.logOptions(), d.forgets); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := d.carryOut(); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	return nil
}

// forgets reports whether what the log is still to remove from a directory is to stay there, as somebody else has had it meanwhile.
func (d *adoption) forgets(dir string) bool {
	dir = d.places.configured(dir)
	_, taken := d.take[dir]
	return taken || slices.Contains(d.leave, dir)
}

func (e *engine) logOptions() seglog.Options {
	return seglog.Options{FS: e.opts.FS, Dir: e.logDir(), Database: e.identity.uuid, Epoch: e.identity.Epoch, Logger: e.opts.Logger, NewUUID: newUUID}
}

// plan finds out what is to be done, and whether it can be.
func (d *adoption) plan(a Adoption) error {
	all := len(a.Take)+len(a.Leave)+len(a.Moved) == 0
	for _, dir := range a.Take {
		if err := d.planTake(dir); err != nil {
			return err
		}
	}
	for _, dir := range a.Leave {
		if err := d.planLeave(dir); err != nil {
			return err
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(a.Moved)) {
		if err := d.planMoved(dir, a.Moved[dir]); err != nil {
			return err
		}
	}
	for _, dir := range d.known {
		if _, taken := d.take[dir]; taken || slices.Contains(d.leave, dir) || d.moved[dir] != "" {
			continue
		}
		f := d.places.look(dir)
		switch {
		case all && (f.State == owner.Taken || f.State == owner.Unmarked):
			if err := d.planTake(dir); err != nil {
				return err
			}
		case f.State == owner.Taken:
			return d.places.ownerError(dir, f) // and what of that?
		}
	}
	return nil
}

// named is the directory of the database that was named so.
func (d *adoption) named(dir string) (string, error) {
	if c := d.places.configured(dir); slices.Contains(d.known, c) {
		dir = c
	}
	switch {
	case !slices.Contains(d.known, dir):
		return "", fmt.Errorf("directory %s is none of the database: it has %q", dir, d.known)
	case d.places.own(dir):
		return "", fmt.Errorf("directory %s is within the database's own: nobody else has it", dir)
	}
	return dir, nil
}

func (d *adoption) planTake(dir string) error {
	dir, err := d.named(dir)
	if err != nil {
		return err
	}
	f := d.places.self.Look(d.places.at(d.places.within(dir)), d.settings.now().place(dir).Accepts)
	switch {
	case f.State == owner.Missing || f.State == owner.Unreadable:
		return d.places.dirError(dir, "", f)
	case errors.Is(f.Err, owner.ErrOther):
		return d.places.ownerError(dir, f)
	case f.State == owner.Ready && !d.settings.now().place(dir).Left:
		return nil // it is the database's
	}
	d.take[dir] = f
	d.newLine(f)
	return nil
}

func (d *adoption) planLeave(dir string) error {
	dir, err := d.named(dir)
	if err != nil {
		return err
	}
	if active, err := d.activeDir(); err != nil {
		return err
	} else if active == dir {
		return fmt.Errorf("directory %s has the segment that the log goes on in: copy what is there, and say where it is now", dir)
	}
	if !d.settings.now().place(dir).Left {
		d.leave = append(d.leave, dir)
		d.newLine(d.places.look(dir))
	}
	return nil
}

// activeDir is the configured directory of the segment that the log goes on in.
func (d *adoption) activeDir() (string, error) {
	dir, err := seglog.ActiveDirectory(d.logOptions())
	if err != nil || dir == "" {
		return "", err
	}
	return d.places.configured(dir), nil
}

func (d *adoption) planMoved(from, to string) error {
	from, err := d.named(from)
	if err != nil {
		return err
	}
	if to == "" {
		return fmt.Errorf("directory %s: where it is now is not said", from)
	}
	if to = filepath.Clean(to); to == from {
		return nil
	}
	p := d.places
	k := p.know(from)
	if f := p.look(from); f.State == owner.Taken {
		d.newLine(f)
	}
	if slices.Contains(d.known, to) {
		return fmt.Errorf("directory %s: the log has other segments there", to)
	}
	if _, err := d.opts.FS.Stat(p.at(to)); err != nil {
		return err
	}
	if err := p.fileMissing(to, k); err != nil {
		return err
	}
	if p.own(to) {
		d.moved[from] = to
		return nil
	}
	f := p.self.Look(p.at(p.within(to)), append(slices.Clone(d.settings.now().place(from).Accepts), owner.None))
	switch {
	case f.State == owner.Unreadable:
		return p.dirError(to, "", f)
	case errors.Is(f.Err, owner.ErrOther):
		return p.ownerError(to, f)
	case f.State == owner.Taken:
		if same, err := d.sameSubdir(from, to); err != nil {
			return err
		} else if same {
			return fmt.Errorf("directories %s and %s are the same: %w", from, to, p.ownerError(to, f))
		}
		d.newLine(f)
	}
	d.moved[from] = to
	return nil
}

// newLine has a line of history begin, after that of whoever a directory belongs to.
func (d *adoption) newLine(f owner.Finding) {
	d.line = true
	d.epoch = max(d.epoch, f.Mark.Epoch)
}

// sameSubdir reports whether two directories are one, under two names.
func (d *adoption) sameSubdir(x, y string) (bool, error) {
	p := d.places
	probe := "probe-" + rand.Text()
	name := filepath.Join(p.at(p.within(y)), probe)
	if err := disk.WriteFile(d.opts.FS, name, nil); err != nil {
		return false, err
	}
	_, err := d.opts.FS.Stat(filepath.Join(p.at(p.within(x)), probe))
	return err == nil, d.opts.FS.Remove(name)
}

func (d *adoption) carryOut() error {
	for from, to := range d.moved {
		if err := d.move(from, to); err != nil {
			return err
		}
	}
	for _, dir := range d.leave {
		if err := d.settings.update(func(next *settings) {
			q := next.place(dir)
			q.Left = true
			next.Places = next.with(q)
		}); err != nil {
			return err
		}
	}
	for dir, f := range d.take {
		if err := d.places.claim(dir, d.places.know(dir), f); err != nil {
			return err
		}
	}
	return nil
}

// move makes a directory the database's, and then has what the table of segments calls from be there.
func (d *adoption) move(from, to string) error {
	p := d.places
	if err := disk.MakeDir(d.opts.FS, p.at(p.within(to))); err != nil {
		return err
	}
	if !p.own(to) {
		accepts := d.settings.now().place(to).Accepts
		f := p.self.Look(p.at(p.within(to)), append(slices.Clone(accepts), owner.None))
		if err := p.claim(to, p.know(to), f); err != nil {
			return err
		}
	}
	defer p.forget(from)
	return d.settings.update(func(next *settings) {
		if next.Moved == nil {
			next.Moved = map[string]string{}
		}
		for old, now := range next.Moved {
			if now == from {
				next.Moved[old] = to
			}
		}
		next.Moved[from] = to
		next.Places = slices.DeleteFunc(next.Places, func(q place) bool { return q.Dir == from })
		for i, c := range next.Logs {
			c.Dirs, c.Warm = renamed(c.Dirs, from, to), renamed(c.Warm, from, to)
			next.Logs[i] = c
		}
	})
}

// renamed is dirs, with to in place of from.
func renamed(dirs []string, from, to string) []string {
	dirs = slices.Clone(dirs)
	for i, dir := range dirs {
		if filepath.Clean(dir) == from {
			dirs[i] = to
		}
	}
	return dirs
}
