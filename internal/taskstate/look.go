package taskstate

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/bytespace/batchlog"
)

// AliveFor is how long a worker that gives no sign of life is taken to be alive by those who only look.
const AliveFor = 75 * time.Second

// A Look is the state of a task at one moment.
type Look struct {
	Config  Config
	Cursor  Cursor
	Control Control
	Trouble *Trouble // nil: none
	Workers map[uint64]Worker
	Claims  []Claim
	Parked  int
}

// A Scanner is a View or a Tx.
type Scanner interface {
	Getter
	Scan(s *batchlog.Space, r batchlog.Range, opts ...batchlog.ReadOption) iter.Seq2[batchlog.Entry, error]
}

// Read reads the state of a task. known is false if there is no such task.
func Read(v Scanner, db *batchlog.DB, name string) (l *Look, known bool, err error) {
	if !ValidName(name) {
		return nil, false, nil
	}
	l = &Look{Workers: map[uint64]Worker{}}
	at := Of(db, name)
	if known, err = Load(v, All(db), batchlog.K(name), &l.Config); err != nil || !known {
		return nil, false, err
	}
	if _, err = Load(v, at.State, KeyCursor, &l.Cursor); err != nil {
		return nil, false, err
	}
	if _, err = Load(v, at.State, KeyControl, &l.Control); err != nil {
		return nil, false, err
	}
	var trouble Trouble
	failing, err := Load(v, at.State, KeyTrouble, &trouble)
	if err != nil {
		return nil, false, err
	}
	if failing && trouble.First > l.Cursor.ID { // else somebody else has handled it
		l.Trouble = &trouble
	}
	for e, err := range v.Scan(at.Workers, batchlog.Range{}) {
		if err != nil {
			return nil, false, err
		}
		fence, err := Number(e.Key)
		if err != nil {
			return nil, false, err
		}
		var w Worker
		if err := Decode(at.Workers, e.Key, e.Value, &w); err != nil {
			return nil, false, err
		}
		l.Workers[fence] = w
	}
	for e, err := range v.Scan(at.Claims, batchlog.Range{}) {
		if err != nil {
			return nil, false, err
		}
		var c Claim
		if err := Decode(at.Claims, e.Key, e.Value, &c); err != nil {
			return nil, false, err
		}
		l.Claims = append(l.Claims, c)
	}
	for _, err := range v.Scan(at.Parked, batchlog.Range{}) {
		if err != nil {
			return nil, false, err
		}
		l.Parked++
	}
	return l, true, nil
}

// Number is the number that a key is.
func Number(k batchlog.Key) (uint64, error) {
	v, err := k.Decode()
	if err != nil {
		return 0, fmt.Errorf("state of a task, key %s: %w", k, err)
	}
	n, ok := v.(float64)
	if !ok || n < 0 {
		return 0, fmt.Errorf("state of a task, key %s is not a number", k)
	}
	return uint64(n), nil
}

// Alive reports whether a worker seems to be.
func (w *Worker) Alive(session string, now time.Time) bool {
	return w.Session == session && now.Sub(w.Seen) < AliveFor
}

// State says how the task is, and why it stands still if it does. pending is whether there is a commit for it to handle.
func (l *Look) State(pending bool, session string, now time.Time) (state, reason string) {
	var alive []Worker
	progress := l.Cursor.Time
	for _, w := range l.Workers {
		if w.Alive(session, now) {
			alive = append(alive, w)
		}
	}
	slices.SortFunc(alive, func(a, b Worker) int { return a.Since.Compare(b.Since) })
	if len(alive) > 0 && alive[0].Since.After(progress) {
		progress = alive[0].Since
	}
	stalled := pending && l.Config.Stall > 0 && now.Sub(progress) > l.Config.Stall
	switch {
	case l.Control.Paused:
		return "paused", ""
	case len(alive) == 0 && l.Trouble != nil && l.Trouble.Stopped:
		return "stopped", l.Trouble.Error
	case len(alive) == 0 && stalled:
		return "stalled", "nobody works on it"
	case len(alive) == 0:
		return "waiting for a worker", ""
	case l.Trouble != nil:
		return "failing", l.Trouble.Error
	case !pending:
		return "idle", ""
	case !stalled:
		return "running", ""
	}
	for _, w := range alive {
		if w.First > 0 {
			return "stalled", fmt.Sprintf("%s has been at commits %d to %d since %s", w.Name, w.First, w.Last, progress.UTC().Format(time.RFC3339))
		}
	}
	return "stalled", "no progress since " + progress.UTC().Format(time.RFC3339)
}
