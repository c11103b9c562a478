package history

import (
	"errors"
	"maps"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// A source is a space that a task follows, and what a window makes of it.
type source struct {
	space *batchlog.Space
	kept  *batchlog.Space // what was derived from each key, under that key; keys that nothing was derived from are not there
	now   map[string]value
}

// A value is that of a key after a window.
type value struct {
	bytes []byte
	gone  bool
}

func newSource(space, kept *batchlog.Space) *source {
	return &source{space: space, kept: kept, now: map[string]value{}}
}

// follow takes the ops of a window over into the sources that they belong to.
func follow(w *task.Window, sources ...*source) error {
	for c, err := range w.Commits() {
		if err != nil {
			return err
		}
		for op, err := range c.Ops() {
			if err != nil {
				return err
			}
			for _, s := range sources {
				if !op.Space.Equal(s.space) {
					continue
				}
				if err := s.apply(w, op); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *source) apply(w *task.Window, op batchlog.Op) error {
	switch op.Kind {
	case batchlog.OpPut:
		s.now[string(op.Key)] = value{bytes: op.Value}
	case batchlog.OpDelete:
		s.now[string(op.Key)] = value{gone: true}
	case batchlog.OpDeleteRange:
		for key := range s.now {
			if key >= string(op.Key) && (op.High == nil || key < string(op.High)) {
				s.now[key] = value{gone: true}
			}
		}
		for e, err := range w.Scan(s.kept, batchlog.Range{Low: op.Key, High: op.High}) {
			if err != nil {
				return err
			}
			s.now[string(e.Key)] = value{gone: true}
		}
	}
	return nil
}

// before is what was derived, before this window, from the keys that it changes.
func (s *source) before(w *task.Window) (map[string][]byte, error) {
	return load(w, s.kept, slices.Sorted(maps.Keys(s.now)))
}

// scanFrom is from how many keys on they are read with one scan: a transaction remembers every read, and may have [batchlog.MaxTxReads].
const scanFrom = 20000

// load reads some keys, which are sorted. Those that are not there are left out.
func load(w *task.Window, s *batchlog.Space, keys []string) (map[string][]byte, error) {
	found := make(map[string][]byte, len(keys))
	if len(keys) >= scanFrom {
		r := batchlog.Range{Low: batchlog.Key(keys[0]), High: append(batchlog.Key(keys[len(keys)-1]), 0)}
		for e, err := range w.Scan(s, r) {
			if err != nil {
				return nil, err
			}
			if _, ok := slices.BinarySearch(keys, string(e.Key)); ok {
				found[string(e.Key)] = e.Value
			}
		}
		return found, nil
	}
	for _, key := range keys {
		v, err := w.Get(s, batchlog.Key(key))
		switch {
		case err == nil:
			found[key] = v
		case !errors.Is(err, batchlog.ErrNotFound):
			return nil, err
		}
	}
	return found, nil
}

// keep makes record what was derived from key; nil: nothing was.
func (s *source) keep(w *task.Window, key string, record []byte) {
	if record == nil {
		w.Delete(s.kept, batchlog.Key(key))
	} else {
		w.Put(s.kept, batchlog.Key(key), record)
	}
}
