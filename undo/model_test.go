package undo_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var modelSeeds = flag.Uint64("undo.seeds", 12, "how many random programs TestModel and TestStacks run")

func seeds() uint64 {
	if testing.Short() {
		return min(2, *modelSeeds)
	}
	return *modelSeeds
}

// A model has whole states: what is in the store after each commit, by stored key.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	fs     *crashfs.FS
	db     *local.DB
	states []map[string]string // by id
	wrote  []map[string]bool   // by id: the keys that ops were on, those of range deletes that were there included
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 3)), fs: crashfs.New()}
	m.states, m.wrote = []map[string]string{{}}, []map[string]bool{{}}
	m.open()
	return m
}

func (m *model) open() {
	m.t.Helper()
	db, err := local.Open("db", &local.Options{FS: m.fs, ChainBytes: 16 << 10, MemTableBytes: 64 << 10, Log: batchlog.LogConfig{Undo: true, BlobBytes: 1024}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.db = db
}

func (m *model) close() {
	m.t.Helper()
	if err := m.db.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// crash has the machine lose its power, and opens the database again: what was acknowledged is there.
func (m *model) crash() {
	m.t.Helper()
	old := m.db
	// Applied, as MemFS hangs where it is cloned while a table is taken in: Link locks twice.
	if _, err := m.db.Root().Get(m.t.Context(), batchlog.K("")); err != nil && !errors.Is(err, batchlog.ErrNotFound) {
		m.t.Fatal(err)
	}
	m.fs = m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: m.rng.IntN(101), RNG: m.rng})
	m.open()
	if err := old.Close(); err != nil { // of what is gone
		m.t.Fatal(err)
	}
	if head, err := m.db.Head(m.t.Context()); err != nil || head != m.head() {
		m.t.Fatalf("head %d after a crash, %v, want %d", head, err, m.head())
	}
}

// backfill turns undo off for some commits, which can't be taken back then, and makes up for it.
func (m *model) backfill() {
	m.t.Helper()
	turn := func(on bool) {
		if err := m.db.Configure(m.t.Context(), batchlog.LogConfig{Undo: on, BlobBytes: 1024}); err != nil {
			m.t.Fatal(err)
		}
	}
	turn(false)
	for range 1 + m.rng.IntN(4) {
		m.write("")
	}
	var missing *batchlog.InverseError
	if _, err := undo.Undo(m.t.Context(), m.db.DB, m.head(), undo.Options{}); !errors.As(err, &missing) || missing.ID != m.head() {
		m.t.Fatalf("undo of %d, from when undo was off: %v", m.head(), err)
	}
	if m.rng.IntN(2) == 0 {
		m.crash()
	}
	turn(true)
	if err := m.db.Backfill(m.t.Context(), batchlog.BackfillOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) head() batchlog.ID { return batchlog.ID(len(m.states) - 1) }

func (m *model) now() map[string]string { return m.states[m.head()] }

func (m *model) anyID() batchlog.ID { return batchlog.ID(1 + m.rng.IntN(int(m.head()))) }

// recent is one of the newest ids.
func (m *model) recent(most int) batchlog.ID {
	return m.head() - batchlog.ID(m.rng.IntN(min(most, int(m.head()))))
}

func (m *model) space() *batchlog.Space {
	return []*batchlog.Space{m.db.Root(), m.db.Space("a"), m.db.Space("a", "b"), m.db.Space("c")}[m.rng.IntN(4)]
}

func (m *model) key() batchlog.Key { return batchlog.K(m.rng.IntN(12)) }

// follow reads the commits that the log has more than the model, the last of which must be id.
func (m *model) follow(id batchlog.ID) {
	m.t.Helper()
	for c, err := range m.db.Tail(m.t.Context(), batchlog.TailOptions{From: batchlog.After(m.head()), Until: id}) {
		if err != nil {
			m.t.Fatal(err)
		}
		state, wrote := maps.Clone(m.now()), map[string]bool{}
		err := c.Inside().EachOp(func(kind batchlog.OpKind, key, value []byte) error {
			switch kind {
			case batchlog.OpPut:
				state[string(key)] = string(value)
				wrote[string(key)] = true
			case batchlog.OpDelete:
				delete(state, string(key))
				wrote[string(key)] = true
			case batchlog.OpDeleteRange:
				in := func(k string) bool { return string(key) <= k && k < string(value) }
				maps.DeleteFunc(state, func(k, _ string) bool { return in(k) })
				maps.DeleteFunc(wrote, func(k string, _ bool) bool { return in(k) }) // by earlier ops of the commit
				for k := range m.now() {
					if in(k) {
						wrote[k] = true
					}
				}
				wrote[string(key)+"\xff\xff"+string(value)] = true // a range
			}
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
		m.states, m.wrote = append(m.states, state), append(m.wrote, wrote)
	}
	if m.head() != id {
		m.t.Fatalf("head %d, want %d", m.head(), id)
	}
}

// touches reports whether commit id had an op on the key.
func (m *model) touches(id batchlog.ID, key string) bool {
	if m.wrote[id][key] {
		return true
	}
	for w := range m.wrote[id] {
		if low, high, ok := strings.Cut(w, "\xff\xff"); ok && low <= key && key < high {
			return true
		}
	}
	return false
}

// changed are the keys that commit id has changed.
func (m *model) changed(id batchlog.ID) map[string]bool {
	return differing(m.states[id-1], m.states[id])
}

func differing(a, b map[string]string) map[string]bool {
	all := map[string]bool{}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			all[k] = true
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			all[k] = true
		}
	}
	return all
}

// restored is the present with some keys as they were at commit id.
func (m *model) restored(keys map[string]bool, id batchlog.ID) map[string]string {
	state := maps.Clone(m.now())
	for k := range keys {
		delete(state, k)
		if v, ok := m.states[id][k]; ok {
			state[k] = v
		}
	}
	return state
}

// conflicts are the keys changed by commit id that do not hold what it left, with the newest commit that wrote each.
func (m *model) conflicts(id batchlog.ID) map[string]batchlog.ID {
	all := map[string]batchlog.ID{}
	for k := range m.changed(id) {
		v, ok := m.states[id][k]
		if w, has := m.now()[k]; has == ok && w == v {
			continue
		}
		for at := m.head(); at > id; at-- {
			if m.touches(at, k) {
				all[k] = at
				break
			}
		}
	}
	return all
}

func (m *model) wantConflicts(id batchlog.ID, err error, want map[string]batchlog.ID) {
	m.t.Helper()
	var conflict *undo.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, batchlog.ErrConflict) {
		m.t.Fatalf("undo of %d: %v, want conflicts %v", id, err, want)
	}
	if conflict.ID != id || conflict.More != 0 || !maps.Equal(conflictMap(conflict.Conflicts), want) {
		m.t.Fatalf("undo of %d: %v, want %q", id, err, want)
	}
	if head, err := m.db.Head(m.t.Context()); err != nil || head != m.head() {
		m.t.Fatalf("undo of %d: wrote commit %d, %v", id, head, err)
	}
}

func conflictMap(conflicts []undo.Conflict) map[string]batchlog.ID {
	all := map[string]batchlog.ID{}
	for _, c := range conflicts {
		all[string(c.Space.Stored())+string(c.Key)] = c.ID
	}
	return all
}

// wantState checks that the newest commit, id, has left that state, and that the store has it.
func (m *model) wantState(what string, id batchlog.ID, err error, want map[string]string) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	if id != m.head()+1 {
		m.t.Fatalf("%s: commit %d after %d", what, id, m.head())
	}
	m.follow(id)
	if d := differing(m.now(), want); len(d) > 0 {
		m.t.Fatalf("%s: commit %d differs in %q", what, id, slices.Sorted(maps.Keys(d)))
	}
}

// write makes a commit of some kind; by names who.
func (m *model) write(by string) batchlog.ID {
	m.t.Helper()
	ctx := m.t.Context()
	labels := map[string]string{}
	if by != "" {
		labels["actor"] = by
	}
	var id batchlog.ID
	var err error
	switch m.rng.IntN(12) {
	case 0:
		var c *batchlog.Chain
		if c, err = m.db.Chain(ctx); err != nil {
			m.t.Fatal(err)
		}
		defer c.Close()
		c.Labels = labels
		if m.rng.IntN(2) == 0 {
			c.DeleteRange(m.space(), batchlog.Range{})
		}
		for range 300 {
			c.Put(m.space(), batchlog.K(m.rng.IntN(200)), bytes.Repeat([]byte{byte('a' + m.rng.IntN(3))}, 100))
		}
		id, err = c.Commit(ctx)
	default:
		b := batchlog.Batch{Labels: labels}
		for range m.rng.IntN(4) {
			switch m.rng.IntN(8) {
			case 0:
				b.Delete(m.space(), m.key())
			case 1:
				b.DeleteRange(m.space(), batchlog.Between(m.key(), m.key()))
			case 2:
				b.Put(m.space(), m.key(), bytes.Repeat([]byte{byte('a' + m.rng.IntN(3))}, 2000)) // a blob
			default:
				b.Put(m.space(), m.key(), fmt.Appendf(nil, "v%d", m.rng.IntN(4)))
			}
		}
		id, err = m.db.Write(ctx, &b)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.follow(id)
	return id
}

// takeBack undoes some commit, strictly.
func (m *model) takeBack() {
	m.t.Helper()
	id := m.anyID()
	if m.rng.IntN(2) == 0 { // a recent one has fewer conflicts
		id = m.recent(4)
	}
	want := m.conflicts(id)
	done, err := undo.Undo(m.t.Context(), m.db.DB, id, undo.Options{})
	if len(want) > 0 {
		m.wantConflicts(id, err, want)
		return
	}
	m.wantState(fmt.Sprint("undo of ", id), done, err, m.restored(m.changed(id), id-1))
	// Twice is a conflict, unless there was nothing to do.
	if len(m.changed(id)) > 0 {
		_, err := undo.Undo(m.t.Context(), m.db.DB, id, undo.Options{})
		m.wantConflicts(id, err, m.conflicts(id))
	}
	if m.rng.IntN(2) == 0 {
		want := m.states[done-1]
		redo := []batchlog.ID{done, id}[m.rng.IntN(2)]
		again, err := undo.Redo(m.t.Context(), m.db.DB, redo, undo.Options{})
		m.wantState(fmt.Sprint("redo of ", redo), again, err, want)
	}
}

// force undoes what is left of some commit.
func (m *model) force() {
	m.t.Helper()
	id := m.anyID()
	conflicts, changed := m.conflicts(id), m.changed(id)
	maps.DeleteFunc(changed, func(k string, _ bool) bool { return conflicts[k] != 0 })
	var left []undo.Conflict
	done, err := undo.Undo(m.t.Context(), m.db.DB, id, undo.Options{Force: true, Left: func(c undo.Conflict) { left = append(left, c) }})
	if len(changed) == 0 && len(conflicts) > 0 {
		m.wantConflicts(id, err, conflicts)
		return
	}
	m.wantState(fmt.Sprint("forced undo of ", id), done, err, m.restored(changed, id-1))
	if !maps.Equal(conflictMap(left), conflicts) {
		m.t.Fatalf("forced undo of %d has left %v, want %q", id, left, conflicts)
	}
}

// cascade undoes some commit and all that follows from it.
func (m *model) cascade() {
	m.t.Helper()
	id := m.recent(30)
	first := map[string]batchlog.ID{} // the first commit of the cascade that has changed the key
	for k := range m.changed(id) {
		first[k] = id
	}
	commits := []batchlog.ID{id}
	for at := id + 1; at <= m.head(); at++ {
		changed := m.changed(at)
		touches := false
		for k := range changed {
			touches = touches || first[k] != 0
		}
		if !touches {
			continue
		}
		commits = append([]batchlog.ID{at}, commits...)
		for k := range changed {
			if first[k] == 0 {
				first[k] = at
			}
		}
	}
	want := maps.Clone(m.now())
	for k, at := range first {
		delete(want, k)
		if v, ok := m.states[at-1][k]; ok {
			want[k] = v
		}
	}
	p, err := undo.PreviewUndo(m.t.Context(), m.db.DB, id, undo.Options{Cascade: true})
	if err != nil || !slices.Equal(p.Commits, commits) || p.Keys != len(first) || len(p.Conflicts) > 0 {
		m.t.Fatalf("preview of the cascade from %d: %+v, %v; want %v", id, p, err, commits)
	}
	done, err := undo.Undo(m.t.Context(), m.db.DB, id, undo.Options{Cascade: true})
	m.wantState(fmt.Sprint("cascade from ", id), done, err, want)
}

// to goes back to some state, or forward.
func (m *model) to() {
	m.t.Helper()
	id := batchlog.ID(m.rng.IntN(len(m.states)))
	o := undo.Options{}
	want := m.states[id]
	if m.rng.IntN(2) == 0 {
		o.Space = m.space()
		open := string(o.Space.Stored()[:len(o.Space.Stored())-1])
		out := func(k, _ string) bool { return !strings.HasPrefix(k, open) }
		in := func(k, _ string) bool { return strings.HasPrefix(k, open) }
		inside, outside := maps.Clone(want), maps.Clone(m.now())
		maps.DeleteFunc(inside, out)
		maps.DeleteFunc(outside, in)
		maps.Copy(inside, outside)
		want = inside
	}
	done, err := undo.To(m.t.Context(), m.db.DB, id, o)
	m.wantState(fmt.Sprint("to ", id), done, err, want)
}

// TestModel runs random programs of commits, undos of all kinds and reopenings.
func TestModel(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			defer func() { m.close() }()
			for range 5 {
				m.write("")
			}
			for range 150 {
				switch m.rng.IntN(18) {
				case 0, 1, 2:
					m.takeBack()
				case 3:
					m.force()
				case 4:
					m.cascade()
				case 5:
					m.to()
				case 6:
					m.close()
					m.open()
				case 7:
					m.check()
				case 8:
					m.crash()
				case 9:
					m.backfill()
				default:
					m.write("")
				}
			}
			m.check()
			r, err := m.db.Verify(t.Context(), local.VerifyOptions{})
			if err != nil || len(r.Problems) > 0 || r.Inverses != int64(m.head()) {
				t.Errorf("verify: %d inverses of %d, %v, %v", r.Inverses, m.head(), r.Problems, err)
			}
		})
	}
}
