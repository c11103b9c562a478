package undo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

// do writes ops in the root, as one commit: "a=1" puts, "-a" deletes, "a..c" deletes a range. A key "s/a" is in space s.
func do(t testing.TB, db *local.DB, ops ...string) batchlog.ID { return doAs(t, db, nil, ops...) }

func doAs(t testing.TB, db *local.DB, labels map[string]string, ops ...string) batchlog.ID {
	t.Helper()
	b := batchlog.Batch{Labels: labels}
	for _, op := range ops {
		if key, value, ok := strings.Cut(op, "="); ok {
			s, k := place(db, key)
			b.Put(s, k, []byte(value))
		} else if low, high, ok := strings.Cut(op, ".."); ok {
			s, k := place(db, low)
			_, h := place(db, high)
			b.DeleteRange(s, batchlog.Between(k, h))
		} else {
			s, k := place(db, op[1:])
			b.Delete(s, k)
		}
	}
	id, err := db.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func place(db *local.DB, key string) (*batchlog.Space, batchlog.Key) {
	if s, k, ok := strings.Cut(key, "/"); ok {
		return db.Space(s), batchlog.K(k)
	}
	return db.Root(), batchlog.K(key)
}

// text is a conflict as "a by 7".
func text(list []undo.Conflict) string {
	var out []string
	for _, c := range list {
		key := strings.Trim(c.Key.String(), `"`)
		if s := c.Space.String(); s != "/" {
			key = s + "/" + key
		}
		out = append(out, fmt.Sprintf("%s by %d", key, c.ID))
	}
	return strings.Join(out, ", ")
}

// state is what the root and the space s hold, as "a=1 s/b=2".
func state(t testing.TB, db *local.DB) string {
	t.Helper()
	v, err := db.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var out []string
	for _, name := range []string{"", "s"} {
		s := db.Root()
		if name != "" {
			s, name = db.Space(name), name+"/"
		}
		for e, err := range v.Scan(s, batchlog.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, name+strings.Trim(e.Key.String(), `"`)+"="+string(e.Value))
		}
	}
	return strings.Join(out, " ")
}

// What conflicts, and what becomes of it with Force and Cascade. Commit 1 sets a and b, commit 2 is taken back, others come in between.
func TestConflicts(t *testing.T) { conflictTable(t, "strict", "force", "cascade") }

// What takes a chain is the same.
func TestConflictsLarge(t *testing.T) {
	undo.SetSmallKeys(t, 0) // which no cascade is below
	conflictTable(t, "strict", "force")
	TestStackTwice(t)
}

func conflictTable(t *testing.T, hows ...string) {
	for _, c := range []struct {
		name      string
		commit    []string   // commit 2
		then      [][]string // the commits from 3 on
		conflicts string
		state     string // after Undo, or what stands if there are conflicts
		forced    string
		cascaded  string // and the label
		undone    string
	}{
		{"nothing since", []string{"a=2"}, nil, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "2"},
		{"a new key", []string{"c=2"}, nil, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "2"},
		{"a deletion", []string{"-a"}, nil, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "2"},
		{"the last op counts", []string{"a=2", "-a", "a=3"}, nil, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "2"},
		{"another key since", []string{"a=2"}, [][]string{{"b=2"}}, "", "a=1 b=2", "a=1 b=2", "a=1 b=2", "2"},
		{"the key since", []string{"a=2", "b=2"}, [][]string{{"a=3"}}, "a by 3", "a=3 b=2", "a=3 b=1", "a=1 b=1", "3,2"},
		{"deleted since", []string{"a=2", "b=2"}, [][]string{{"-a"}}, "a by 3", "b=2", "b=1", "a=1 b=1", "3,2"},
		{"newest of several", []string{"a=2"}, [][]string{{"a=3"}, {"a=4"}, {"b=5"}}, "a by 4", "a=4 b=5", "a=4 b=5", "a=1 b=5", "4,3,2"},
		{"changed and set back", []string{"a=2"}, [][]string{{"a=3"}, {"a=2"}}, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "4,3,2"},
		{"the same value again", []string{"a=2"}, [][]string{{"a=2", "c=2"}}, "", "a=1 b=1 c=2", "a=1 b=1 c=2", "a=1 b=1 c=2", "2"},
		{"by a range delete", []string{"a=2", "b=2"}, [][]string{{"a..b"}}, "a by 3", "b=2", "b=1", "a=1 b=1", "3,2"},
		{"a range that covers it again", []string{"a..z"}, [][]string{{"a=5"}, {"a..c"}}, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "4,3,2"},
		{"into a deleted range, had one", []string{"a..z"}, [][]string{{"a=5"}}, "a by 3", "a=5", "a=5 b=1", "a=1 b=1", "3,2"},
		{"into a deleted range, had none", []string{"a..z"}, [][]string{{"c=5"}}, "", "a=1 b=1 c=5", "a=1 b=1 c=5", "a=1 b=1 c=5", "2"},
		{"range, then put", []string{"a..z", "b=9"}, nil, "", "a=1 b=1", "a=1 b=1", "a=1 b=1", "2"},
		{"put, then range", []string{"b=9", "a..z"}, [][]string{{"b=9"}}, "b by 3", "b=9", "a=1 b=9", "a=1 b=1", "3,2"},
		{"other keys of the later one", []string{"a=2"}, [][]string{{"a=3", "b=3", "c=3"}}, "a by 3", "a=3 b=3 c=3", "a=3 b=3 c=3", "a=1 b=1", "3,2"},
		{"over another key", []string{"a=2"}, [][]string{{"b=8"}, {"a=3", "b=3"}, {"b=4"}}, "a by 4", "a=3 b=4", "a=3 b=4", "a=1 b=8", "5,4,2"},
		{"in another space", []string{"a=2", "s/a=2"}, [][]string{{"s/a=3"}}, "s/a by 3", "a=2 b=1 s/a=3", "a=1 b=1 s/a=3", "a=1 b=1", "3,2"},
		{"changes nothing", []string{"a=1"}, [][]string{{"a=3"}}, "", "a=3 b=1", "a=3 b=1", "a=3 b=1", "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, how := range hows {
				o := undo.Options{Force: how == "force", Cascade: how == "cascade"}
				db := openUndo(t)
				do(t, db, "a=1", "b=1")
				do(t, db, c.commit...)
				for _, ops := range c.then {
					do(t, db, ops...)
				}
				head := batchlog.ID(2 + len(c.then))
				conflicts, want, undone := c.conflicts, c.state, "2"
				var left []undo.Conflict
				switch how {
				case "force":
					want = c.forced
					o.Left = func(k undo.Conflict) { left = append(left, k) }
				case "cascade":
					conflicts, want, undone = "", c.cascaded, c.undone
				}
				seen, err := undo.PreviewUndo(t.Context(), db.DB, 2, o)
				if err != nil || text(seen.Conflicts) != conflicts || seen.At != head {
					t.Errorf("%s: preview %+v, %v", how, seen, err)
				}
				id, err := undo.Undo(t.Context(), db.DB, 2, o)
				var conflict *undo.ConflictError
				if errors.As(err, &conflict) {
					if how == "cascade" || text(conflict.Conflicts) != conflicts || conflict.ID != 2 || conflict.More != 0 || id != 0 || !errors.Is(err, batchlog.ErrConflict) {
						t.Errorf("%s: %d, %v; want conflicts %q", how, id, err, conflicts)
					}
				} else if err != nil || how == "strict" && conflicts != "" || id != head+1 || commit(t, db, id).Labels["undo"] != undone {
					t.Errorf("%s: %d, %v; want conflicts %q, label %q", how, id, err, conflicts, undone)
				}
				if how == "force" && err == nil && text(left) != conflicts {
					t.Errorf("left %q, want %q", text(left), conflicts)
				}
				if got := state(t, db); got != want {
					t.Errorf("%s: %s; want %s", how, got, want)
				}
				if n := len(strings.Split(undone, ",")); len(seen.Commits) != n || !slices.IsSortedFunc(seen.Commits, func(a, b batchlog.ID) int { return int(b) - int(a) }) {
					t.Errorf("%s: preview of commits %v", how, seen.Commits)
				}
			}
		})
	}
}
