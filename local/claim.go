package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/owner"
	"github.com/bytespace/batchlog/internal/seglog"
)

// Begin is as seglog.Places says. A directory that belongs to somebody else refuses the opening, before anything is changed. The others are taken as they are; those of a
// database that has not marked any yet are marked, as far as they are there.
func (p *places) Begin(files map[string]string) error {
	dirs := p.learn(files)
	var taken []error
	for _, dir := range dirs {
		if f := p.look(dir); f.State == owner.Taken {
			taken = append(taken, p.ownerError(dir, f))
		}
	}
	if len(taken) > 0 {
		return errors.Join(taken...)
	}
	if p.settings.now().Fresh {
		if err := p.settings.update(func(next *settings) {
			next.Fresh = false
			for _, dir := range dirs {
				if !p.own(dir) && !next.knows(dir) {
					next.Places = next.with(place{Dir: dir, Accepts: []string{owner.None}})
				}
			}
		}); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		if err := p.beginIn(dir); err != nil {
			p.logger.Warn("directory of segments is not changed yet", "dir", p.at(p.within(dir)), "err", err)
		}
	}
	return nil
}

// learn notes which files the table of segments names, and returns all directories that matter.
func (p *places) learn(files map[string]string) []string {
	dirs := map[string]bool{}
	c := p.settings.config()
	for _, dir := range slices.Concat(c.Dirs, c.Warm) {
		dirs[p.configured(dir)] = true
	}
	for dir, file := range files {
		if dir == "" {
			continue
		}
		root := p.configured(dir)
		dirs[root] = true
		if file != "" {
			_, rest := p.split(dir)
			p.know(root).file = filepath.Join(rest, file)
		}
	}
	return slices.Sorted(maps.Keys(dirs))
}

// beginIn marks a directory that has none yet, or whose mark says that the database is elsewhere.
func (p *places) beginIn(dir string) error {
	if p.own(dir) {
		return nil
	}
	q := p.settings.now().place(dir)
	k := p.know(dir)
	if !q.Left && slices.Contains(q.Accepts, owner.None) {
		if err := p.makeWithin(dir, k); err != nil {
			return err
		}
	}
	f := p.look(dir)
	if f.State != owner.Ready || f.Mark != (owner.Mark{}) && !f.Moved {
		return nil
	}
	return p.Change(p.within(dir))
}

// makeWithin makes the subdirectory of a directory that no mark was given yet, if that is there, and is the one that the table of segments means.
func (p *places) makeWithin(dir string, k *known) error {
	if _, err := p.self.FS.Stat(p.at(dir)); err != nil {
		return err
	}
	if err := p.fileMissing(dir, k); err != nil {
		return err
	}
	return disk.MakeDir(p.self.FS, p.at(p.within(dir)))
}

// Change is as seglog.Places says.
func (p *places) Change(dir string) error {
	dir = p.configured(dir)
	k := p.know(dir)
	k.marking <- struct{}{}
	defer func() { <-k.marking }()
	f := p.look(dir)
	if f.State != owner.Ready {
		return p.dirError(dir, "", f)
	}
	if !p.own(dir) && (k.claimed == "" || f.Mark.Incarnation != k.claimed) {
		if err := p.claim(dir, k, f); err != nil {
			return err
		}
	}
	if !k.made {
		if err := disk.MakeDir(p.self.FS, p.at(p.line(dir))); err != nil {
			return err
		}
		k.made = true
	}
	return nil
}

// changeFile is Change for the directory of a file.
func (p *places) changeFile(file string) error {
	if dir := p.outside(file); dir != "" {
		return p.Change(dir)
	}
	return nil
}

// claim gives a directory its next incarnation. The caller holds k.marking.
func (p *places) claim(dir string, k *known, f owner.Finding) error {
	next := rand.Text()
	_, err := p.self.Claim(p.at(p.within(dir)), owner.Claim{
		Found: f, Accepts: p.settings.now().place(dir).Accepts, Next: next, Now: time.Now(),
		Keep: func(accepts []string) error {
			return p.settings.update(func(s *settings) { s.Places = s.with(place{Dir: dir, Accepts: accepts}) })
		},
	})
	if disk.Full(err) && !errors.Is(err, batchlog.ErrNoSpace) {
		err = fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	}
	if err != nil {
		return fmt.Errorf("make directory %s that of the database: %w", p.at(p.within(dir)), err)
	}
	k.claimed, k.made = next, false
	p.look(dir)
	return nil
}

// Keep is as seglog.Places says. On a full disk, which has no room for another mark, the one that is there is enough: an older state of the database would miss
// what is removed then, and lose nothing else.
func (p *places) Keep(dir string) error {
	err := p.Change(dir)
	if !errors.Is(err, batchlog.ErrNoSpace) {
		return err
	}
	dir = p.configured(dir)
	if f := p.look(dir); f.State != owner.Ready {
		return p.dirError(dir, "", f)
	}
	return nil
}

// configure makes the directories that c names and the settings did not, and makes them the database's.
func (p *places) configure(c batchlog.LogConfig) error {
	now := p.settings.now()
	old := now.Logs[0]
	before := slices.Concat(old.Dirs, old.Warm)
	for _, dir := range slices.Concat(c.Dirs, c.Warm) {
		if slices.Contains(before, dir) {
			continue // one that is missing must not be made again where its disk is to be mounted
		}
		dir = filepath.Clean(dir)
		if to, moved := now.Moved[dir]; moved {
			return fmt.Errorf("directory %s: what the log has there is in %s now; use that, or one that it never had", dir, to)
		}
		if err := p.configureDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (p *places) configureDir(dir string) error {
	at := p.at(p.within(dir))
	if err := disk.MakeDir(p.self.FS, at); err != nil {
		return fmt.Errorf("directory of segments: %w", err)
	}
	k := p.know(dir)
	k.marking <- struct{}{}
	defer func() { <-k.marking }()
	f := p.look(dir)
	switch {
	case f.State == owner.Taken:
		return p.ownerError(dir, f)
	case f.State == owner.Unmarked:
		return p.claim(dir, k, f) // whoever configures it says that it is the database's
	case f.State != owner.Ready:
		return p.dirError(dir, "", f)
	case p.own(dir) || k.claimed != "" && f.Mark.Incarnation == k.claimed:
		return nil
	}
	return p.claim(dir, k, f)
}

// log is what the log is told of its settings.
func (p *places) log() seglog.Settings {
	c := p.settings.config()
	s := seglog.Settings{SegmentBytes: c.SegmentBytes}
	for _, dir := range c.Dirs {
		s.Dirs = append(s.Dirs, p.line(dir))
	}
	for _, dir := range c.Warm {
		s.Warm = append(s.Warm, p.line(dir))
	}
	return s
}
