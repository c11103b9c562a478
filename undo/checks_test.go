package undo_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/bytespace/batchlog/undo"
)

// check compares what Show, Diff and History say with the states.
func (m *model) check() {
	m.t.Helper()
	m.checkShow(m.anyID())
	from, to := batchlog.ID(m.rng.IntN(len(m.states))), batchlog.ID(m.rng.IntN(len(m.states)))
	m.checkDiff(from, to)
	for range 3 {
		m.checkHistory(m.space(), m.key())
	}
}

// valueText is a value as the store has it.
func valueText(v undo.Value) string {
	switch {
	case !v.Known:
		return "?"
	case !v.Exists:
		return "none"
	case v.Blob != nil:
		return string(wire.AppendBlobRef(nil, wire.BlobRef(*v.Blob)))
	default:
		return "=" + string(v.Bytes)
	}
}

func stateText(state map[string]string, key string) string {
	v, ok := state[key]
	if !ok {
		return "none"
	}
	if _, ref, err := wire.ParseValue([]byte(v)); err == nil && ref != nil {
		return v
	}
	return "=" + v
}

func changeText(key, before, after string) string {
	return fmt.Sprintf("%q: %.60q → %.60q", key, before, after)
}

func wantChanges(before, after map[string]string) (want []string) {
	for _, k := range slices.Sorted(maps.Keys(differing(before, after))) {
		want = append(want, changeText(k, stateText(before, k), stateText(after, k)))
	}
	return want
}

func (m *model) checkShow(id batchlog.ID) {
	m.t.Helper()
	var got []string
	for c, err := range undo.Show(m.t.Context(), m.db.DB, id) {
		if err != nil {
			m.t.Fatal(err)
		}
		got = append(got, changeText(string(c.Space.Stored())+string(c.Key), valueText(c.Old), valueText(c.New)))
	}
	if want := wantChanges(m.states[id-1], m.states[id]); !slices.Equal(got, want) {
		m.t.Fatalf("show %d: %q, want %q", id, got, want)
	}
}

func (m *model) checkDiff(from, to batchlog.ID) {
	m.t.Helper()
	changes, err := undo.Diff(m.t.Context(), m.db.DB, from, to)
	if err != nil {
		m.t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, changeText(string(c.Space.Stored())+string(c.Key), valueText(c.Old), valueText(c.New)))
	}
	if want := wantChanges(m.states[from], m.states[to]); !slices.Equal(got, want) {
		m.t.Fatalf("diff %d %d: %q, want %q", from, to, got, want)
	}
}

func (m *model) checkHistory(s *batchlog.Space, key batchlog.Key) {
	m.t.Helper()
	stored := string(s.Stored()) + string(key)
	var want []string
	for id := m.head(); id > 0; id-- {
		_, now := m.states[id][stored]
		_, before := m.states[id-1][stored]
		if m.wrote[id][stored] || m.touches(id, stored) && before && !now {
			want = append(want, fmt.Sprintf("%d %.60q", id, stateText(m.states[id], stored)))
		}
	}
	var got []string
	for v, err := range undo.History(m.t.Context(), m.db.DB, s, key) {
		if err != nil {
			m.t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %.60q", v.ID, valueText(v.Value)))
	}
	if !slices.Equal(got, want) {
		m.t.Fatalf("history of %s in %s: %q, want %q", key, s, got, want)
	}
}
