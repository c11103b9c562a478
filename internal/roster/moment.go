package roster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// cutEvery bounds how often views cut the windows of tasks. Views that come sooner wait for the next moment, and share it.
const cutEvery = 2 * time.Millisecond

// A moment is the database at one commit, derived spaces included. Views share it; the last one lets go of it.
type moment struct {
	roster *Roster
	ready  chan struct{}  // closed when base or err is there
	base   waist.Snapshot // of everything but what tasks derive
	err    error
	cut    []*entry // the tasks whose windows end here

	mu    sync.Mutex
	refs  int
	taken bool // ready is closed, or about to be
	tasks map[*entry]waist.Snapshot
}

// moments makes one after the other.
type moments struct {
	mu   sync.Mutex
	last time.Time
	next *moment // that is to be taken; views join it
}

// join is the next moment, which the caller must leave.
func (ms *moments) join(r *Roster) *moment {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.next == nil {
		ms.next = &moment{roster: r, ready: make(chan struct{}), tasks: map[*entry]waist.Snapshot{}}
		go ms.take(ms.next, time.Until(ms.last.Add(cutEvery)))
	}
	ms.next.mu.Lock()
	ms.next.refs++
	ms.next.mu.Unlock()
	return ms.next
}

// take makes m after d.
func (ms *moments) take(m *moment, d time.Duration) {
	time.Sleep(d)
	ms.mu.Lock()
	ms.next, ms.last = nil, time.Now()
	ms.mu.Unlock()

	r := m.roster
	for _, e := range r.deriving() {
		if len(r.upstream(e)) > 0 {
			continue
		}
		m.cut = append(m.cut, e)
		e.mu.Lock()
		e.cuts[m] = struct{}{}
		e.mu.Unlock()
	}
	// A window that had its turn before may still be on its way. It ends at head at the latest, so the moment is there or later.
	if m.err = r.engine.Hold(context.Background(), batchlog.ReadOptions{}); m.err == nil {
		m.base, m.err = r.engine.Snapshot()
	}
	m.mu.Lock()
	m.taken = true
	abandoned := m.refs == 0
	m.mu.Unlock()
	close(m.ready)
	if m.err != nil || abandoned {
		_ = m.drop(nil) // there is nobody to tell
	}
}

func (m *moment) uncut() {
	for _, e := range m.cut {
		e.mu.Lock()
		delete(e.cuts, m)
		e.mu.Unlock()
	}
}

// of is the snapshot for what e derives, nil as long as there is none.
func (m *moment) of(e *entry) waist.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tasks[e]
}

// settle takes the snapshot for e, as e is now. Its caller has the turn of e.
func (m *moment) settle(ctx context.Context, e *entry) error {
	e.mu.Lock()
	delete(e.cuts, m)
	last := e.last
	e.mu.Unlock()
	if m.of(e) != nil {
		return nil
	}
	s := m.base
	if last > m.base.ID() {
		if err := m.roster.engine.Hold(ctx, batchlog.ReadOptions{AtLeast: last}); err != nil {
			return err
		}
		var err error
		if s, err = m.roster.engine.Snapshot(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refs == 0 {
		if s != m.base {
			return s.Close()
		}
		return nil
	}
	m.tasks[e] = s
	return nil
}

// leave is the end of one view.
func (m *moment) leave() error {
	m.mu.Lock()
	m.refs--
	last, tasks := m.refs == 0 && m.taken, m.tasks
	m.mu.Unlock()
	if !last {
		return nil
	}
	return m.drop(tasks)
}

func (m *moment) drop(tasks map[*entry]waist.Snapshot) error {
	m.uncut()
	if m.base == nil {
		return nil
	}
	var errs []error
	for _, s := range tasks {
		if s != m.base {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, m.base.Close())...)
}

// serveCuts lets moments have their snapshots before e is moved by m, or refuses m because it would move e past one. Its caller
// has the turn of e.
func (r *Roster) serveCuts(ctx context.Context, e *entry, m wire.TaskMove) error {
	e.mu.Lock()
	cuts := make([]*moment, 0, len(e.cuts))
	for c := range e.cuts {
		cuts = append(cuts, c)
	}
	e.mu.Unlock()
	at := batchlog.ID(0)
	for _, c := range cuts {
		select {
		case <-c.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c.err != nil {
			continue
		}
		switch id := c.base.ID(); {
		case id <= m.From:
			if err := c.settle(ctx, e); err != nil {
				return err
			}
		case id < m.To && (at == 0 || id < at):
			at = id
		}
	}
	if at != 0 {
		return &batchlog.TaskMoveError{Move: batchlog.TaskMove(m), Cursor: m.From, Cut: at}
	}
	return nil
}
