package seglog

import (
	"errors"
	"fmt"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
)

// A keeper makes edits of the table durable. All of it is guarded by its lock, which comes before [Log.mu] and is held while an edit is
// written and synced: the appender takes it when it begins a segment. Nothing slower is done under it than two syncs.
type keeper struct {
	file    *tableFile
	closed  bool     // nothing is written any more
	number  uint32   // of the newest file of a table that there may be
	pending [][]byte // edits that were made while the table is written to another file; nil: it isn't
	tried   int64    // where file stood when another one could not be made
	marked  mark     // that was written last
	durable mark     // that was synced last
	stale   []string // files of the table that the manifest names no more
}

// markInterval is how often the end of the active segment is noted, at most.
const markInterval = 100 * time.Millisecond

// edit makes the changes that build asks for, of the table as it is then: first they are durable, then readers see them. With none it does
// nothing. After Close it is ErrClosed, and writes nothing; Close waits for one that is under way. If it fails the table is as it was: with ErrNoSpace the
// log goes on, and anything that leaves open what a crash would find ends appending, as a failed sync does.
func (l *Log) edit(build func(t *table) edit) error {
	l.keep.Lock()
	defer l.keep.Unlock()
	if l.keep.closed {
		return batchlog.ErrClosed
	}
	if err := l.Failed(); err != nil {
		return err
	}
	t := l.table.Load()
	e := build(t)
	if len(e) == 0 {
		return nil
	}
	next, err := t.apply(e)
	if err != nil {
		panic("batchlog: bug: edit of the table of segments: " + err.Error())
	}
	next.mark = l.durableEnd(next)
	body := appendEdit(nil, append(e, next.mark.change()))
	spoilt, err := l.keep.file.append(body)
	switch {
	case spoilt:
		// Nobody knows what that file holds: this edit or not. Another one, which has it, takes its place, or there is no going on.
		l.opts.Logger.Warn("table of segments is written to another file", "err", err)
		if err := l.replaceTable(next); err != nil {
			_ = l.failSync(err)
			return l.Failed()
		}
	case noSpace(err):
		return fmt.Errorf("%w: %w", batchlog.ErrNoSpace, err)
	case err != nil:
		return err
	case l.keep.pending != nil:
		l.keep.pending = append(l.keep.pending, body)
	}
	l.keep.marked, l.keep.durable = next.mark, next.mark
	l.show(t, next, e)
	if f := l.keep.file; l.keep.pending == nil && (f.worn() || f.size-f.at < tableRoom) {
		poke(l.tableWanted)
	}
	return nil
}

// show has readers see next, which e made of t.
func (l *Log) show(t, next *table, e edit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range e {
		switch e[i].kind {
		case kindRemoved:
			for g := range t.limbo.from(e[i].low) {
				if g.n > e[i].high {
					break
				}
				if file, ok := chainFile(g.name); ok && l.mu.chains[file] < next.oldest() {
					delete(l.mu.chains, file)
				}
			}
		case kindDropped:
			for first := range l.mu.notes {
				if first < next.oldest() {
					delete(l.mu.notes, first)
				}
			}
		}
	}
	l.table.Store(next)
	if next.limbo.len() > 0 {
		poke(l.sweepWanted)
	}
}

// durableEnd is up to where the active segment of t is durable.
func (l *Log) durableEnd(t *table) mark {
	s := t.active()
	switch {
	case s.live == nil && t.mark.first == s.first:
		return t.mark // nobody has looked at it since
	case s.live == nil:
		return mark{s.first, segment.HeaderSize, 0}
	}
	return mark{s.first, s.live.end.Load(), s.live.begun.Load()}
}

// replaceTable has a new file hold the table t, and the manifest name it. An error leaves open which of the two a crash would find, unless it is
// from before the manifest was touched.
func (l *Log) replaceTable(t *table) error {
	f, err := l.writeTable(t, l.nextNumber())
	if err != nil {
		return fmt.Errorf("write table of segments: %w", err)
	}
	_, err = l.useTable(f)
	return err
}

// nextNumber is that of a file which was never used. The caller has the lock of the keeper.
func (l *Log) nextNumber() uint32 {
	l.keep.number++
	return l.keep.number
}

// writeTable makes a file of t, and it and its name durable.
func (l *Log) writeTable(t *table, number uint32) (*tableFile, error) {
	h := tableHead{database: l.opts.Database, id: l.opts.NewUUID(), number: number}
	f, err := createTable(l.opts.FS, l.opts.Dir, h, t.snapshot)
	if err != nil {
		return nil, err
	}
	if err := disk.SyncDir(l.opts.FS, l.opts.Dir); err != nil {
		return nil, errors.Join(err, l.dropTable(f))
	}
	return f, nil
}

// dropTable closes and removes a file that the manifest does not name.
func (l *Log) dropTable(f *tableFile) error {
	return errors.Join(f.file.Close(), disk.Remove(l.opts.FS, l.path("", tableName(f.head.number))))
}

// useTable has the manifest name f. The caller has the lock of the keeper. If it fails, uncertain says that a crash may find that or what it named
// before.
func (l *Log) useTable(f *tableFile) (uncertain bool, err error) {
	uncertain, err = disk.ReplaceFile(l.opts.FS, l.path("", manifestName), f.doc())
	if err != nil {
		if !uncertain {
			return false, errors.Join(fmt.Errorf("write manifest: %w", err), l.dropTable(f))
		}
		return true, errors.Join(fmt.Errorf("write manifest: %w", err), f.file.Close())
	}
	if old := l.keep.file; old != nil {
		_ = old.file.Close() // whatever that says: it is not used any more
		l.keep.stale = append(l.keep.stale, tableName(old.head.number))
		poke(l.sweepWanted)
	}
	l.keep.file, l.keep.tried = f, 0
	return false, nil
}

// tableLoop has the file of the table be replaced when its edits outweigh what it began with, and its room on the disk be ahead of it.
func (l *Log) tableLoop() {
	for {
		select {
		case <-l.done:
			return
		case <-l.tableWanted:
		}
		if err := l.tidyTable(); err != nil {
			l.opts.Logger.Warn("table of segments grows on in its file", "err", err)
		}
	}
}

// tidyTable writes the table to another file, if it is time for that. The table is immutable, so that commits, and all else that edits it, go on while
// it is written; only the edits since are written under the lock.
func (l *Log) tidyTable() error {
	l.keep.Lock()
	f := l.keep.file
	if l.keep.closed || l.Failed() != nil {
		l.keep.Unlock()
		return nil
	}
	if f.size-f.at < tableRoom {
		if spoilt, _ := f.extend(); spoilt { // else the disk is full: it is tried again with the next edit
			err := l.replaceTable(l.table.Load())
			if err != nil {
				err = l.failSync(err)
			}
			l.keep.Unlock()
			return err
		}
	}
	if !f.worn() || l.keep.tried != 0 && f.at-l.keep.tried < tableAhead {
		l.keep.Unlock()
		return nil
	}
	t, number := l.table.Load(), l.nextNumber()
	l.keep.pending = [][]byte{}
	l.keep.Unlock()

	next, err := l.writeTable(t, number)

	l.keep.Lock()
	defer l.keep.Unlock()
	pending := l.keep.pending
	l.keep.pending = nil
	if err != nil {
		l.keep.tried = f.at
		return err
	}
	if l.keep.closed || l.keep.file != f || l.Failed() != nil {
		return l.dropTable(next)
	}
	if _, err := next.append(pending...); err != nil {
		l.keep.tried = f.at
		return errors.Join(err, l.dropTable(next))
	}
	if uncertain, err := l.useTable(next); uncertain {
		return l.failSync(err)
	} else if err != nil {
		l.keep.tried = f.at
		return err
	}
	return nil
}

// markLoop notes from time to time up to where the active segment is durable. That is for a process that is killed, and a file that is damaged meanwhile:
// a mark says only what is so already, and nobody waits for it.
func (l *Log) markLoop() {
	for {
		select {
		case <-l.done:
			return
		case <-l.markWanted:
		}
		l.keep.Lock()
		if !l.keep.closed && l.Failed() == nil {
			if m := l.durableEnd(l.table.Load()); m != l.keep.marked && l.keep.file.mark(m) == nil { // it is nothing that must be there
				l.keep.marked = m
			}
		}
		l.keep.Unlock()
		select {
		case <-l.done:
			return
		case <-time.After(markInterval):
		}
	}
}

// closeTable has nothing write the table any more. What was durable is noted, durably.
func (l *Log) closeTable() error {
	l.keep.Lock()
	defer l.keep.Unlock()
	l.keep.closed = true
	f := l.keep.file
	if f == nil {
		return nil
	}
	var err error
	if m := l.durableEnd(l.table.Load()); l.Failed() == nil && m != l.keep.durable {
		if err = f.mark(m); err == nil {
			err = f.file.SyncData()
		}
		if noSpace(err) {
			l.opts.Logger.Warn("how far the log is durable is not noted, as the disk is full", "err", err)
			err = nil // nothing is lost by it
		}
	}
	return errors.Join(err, f.file.Close())
}

// poke has a loop come by, if it isn't about to.
func poke(wanted chan<- struct{}) {
	select {
	case wanted <- struct{}{}:
	default:
	}
}
