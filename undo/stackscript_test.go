package undo_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

func by(name string) map[string]string { return map[string]string{"actor": name} }

// A stage plays what actors do: "alice a=1" writes, "alice undo" and "alice redo" use the stack, "undo 3" and "alice redo 3" the functions.
type stage struct {
	t      *testing.T
	db     *local.DB
	stacks map[string]*undo.ActorStack
}

func newStage(t *testing.T) *stage { return &stage{t, openUndo(t), map[string]*undo.ActorStack{}} }

func (s *stage) of(name string) *undo.ActorStack {
	if s.stacks[name] == nil {
		s.stacks[name] = undo.Stack(s.db.DB, "actor", name)
	}
	return s.stacks[name]
}

func (s *stage) play(line string) (batchlog.ID, error) {
	s.t.Helper()
	words := strings.Fields(line)
	name := ""
	if w := words[0]; w == "alice" || w == "bob" {
		name, words = w, words[1:]
	}
	var o undo.Options
	if name != "" {
		o.Labels = by(name)
	}
	if len(words) == 2 {
		var id batchlog.ID
		if _, err := fmt.Sscan(words[1], &id); err == nil {
			switch words[0] {
			case "undo":
				return undo.Undo(s.t.Context(), s.db.DB, id, o)
			case "cascade":
				o.Cascade = true
				return undo.Undo(s.t.Context(), s.db.DB, id, o)
			case "force":
				o.Force = true
				return undo.Undo(s.t.Context(), s.db.DB, id, o)
			case "redo":
				return undo.Redo(s.t.Context(), s.db.DB, id, o)
			case "to":
				return undo.To(s.t.Context(), s.db.DB, id, o)
			}
		}
	}
	switch words[0] {
	case "undo":
		return s.of(name).Undo(s.t.Context())
	case "redo":
		return s.of(name).Redo(s.t.Context())
	}
	return doAs(s.t, s.db, o.Labels, words...), nil
}

// Each line is what is done, and behind the arrow the state then, or the error, and the commits that alice would take back by undo and redo.
var stackScripts = map[string]string{
	"back and forth": `
			alice a=1  > a=1 | 1 0
			alice a=2  > a=2 | 2 0
			alice undo > a=1 | 1 3
			alice undo > | 0 4
			alice undo > nothing | 0 4
			alice redo > a=1 | 5 3
			alice redo > a=2 | 6 0
			alice redo > nothing | 6 0
			alice undo > a=1 | 5 7
			alice undo > | 0 8`,
	"a new step ends redo": `
			alice a=1  > a=1 | 1 0
			alice undo > | 0 2
			alice b=1  > b=1 | 3 0
			alice redo > nothing | 3 0
			alice undo > | 0 4
			alice undo > nothing | 0 4`,
	"others in between": `
			alice a=1  > a=1 | 1 0
			bob b=1    > a=1 b=1 | 1 0
			c=1        > a=1 b=1 c=1 | 1 0
			alice undo > b=1 c=1 | 0 4
			bob undo   > c=1 | 0 4
			alice redo > a=1 c=1 | 6 0
			bob redo   > a=1 b=1 c=1 | 6 0
			bob redo   > nothing | 6 0`,
	"a conflict leaves all": `
			alice a=1  > a=1 | 1 0
			alice b=1  > a=1 b=1 | 2 0
			bob b=2    > a=1 b=2 | 2 0
			alice undo > conflict | 2 0
			alice undo > conflict | 2 0
			bob undo   > a=1 b=1 | 2 0
			alice undo > a=1 | 1 5
			bob redo   > conflict | 1 5`,
	"a conflict of a redo": `
			alice a=1  > a=1 | 1 0
			alice undo > | 0 2
			bob a=2    > a=2 | 0 2
			alice redo > conflict | 0 2
			bob undo   > | 0 2
			alice redo > a=1 | 5 0`,
	"undone by another": `
			alice a=1  > a=1 | 1 0
			alice b=1  > a=1 b=1 | 2 0
			bob undo 1 > b=1 | 2 3
			bob undo   > a=1 b=1 | 4 0
			undo 1     > b=1 | 2 5
			alice undo > | 0 6
			alice redo > b=1 | 7 5
			alice redo > a=1 b=1 | 8 0`,
	"undo of a redo": `
			alice a=1  > a=1 | 1 0
			alice undo > | 0 2
			alice redo > a=1 | 3 0
			undo 3     > | 0 4
			undo 4     > a=1 | 5 0
			undo 1     > | 0 6
			redo 1     > a=1 | 7 0`,
	"in a cascade": `
			alice a=1    > a=1 | 1 0
			alice a=2 b=2 > a=2 b=2 | 2 0
			bob a=3      > a=3 b=2 | 2 0
			cascade 1    > | 0 4
			alice redo   > a=3 b=2 | 2 0
			alice force 2 > a=3 | 1 6
			alice undo   > conflict | 1 6`,
	"all of a cascade": `
			alice a=1  > a=1 | 1 0
			alice a=2  > a=2 | 2 0
			cascade 1  > | 0 3
			alice redo > a=2 | 2 0
			undo 4     > | 0 5
			alice redo > a=2 | 2 0
			alice undo > a=1 | 1 7
			alice undo > | 0 8
			alice redo > a=1 | 9 7
			alice redo > a=2 | 10 0`,
	"undone again, without a change": `
			alice a=1    > a=1 | 1 0
			alice a=1    > a=1 | 2 0
			alice undo   > a=1 | 1 3
			alice undo 2 > a=1 | 1 3
			alice redo   > a=1 | 5 0`,
	"forced, then back": `
			alice a=1 b=1 > a=1 b=1 | 1 0
			bob b=2       > a=1 b=2 | 1 0
			alice force 1 > b=2 | 0 3
			alice redo    > a=1 b=2 | 4 0
			alice undo    > b=2 | 0 5`,
	"to is a step": `
			alice a=1  > a=1 | 1 0
			bob b=1    > a=1 b=1 | 1 0
			alice to 1 > a=1 | 3 0
			alice undo > a=1 b=1 | 1 4
			to 1       > a=1 | 1 4
			alice undo > | 0 6`,
	"of another's commit": `
			alice a=1    > a=1 | 1 0
			bob b=1      > a=1 b=1 | 1 0
			alice undo 2 > a=1 | 3 0
			alice undo   > a=1 b=1 | 1 4
			bob undo     > a=1 | 5 0`,
	"without a change": `
			alice a=1  > a=1 | 1 0
			alice a=1  > a=1 | 2 0
			alice undo > a=1 | 1 3
			alice redo > a=1 | 4 0
			alice undo > a=1 | 1 5
			alice undo > | 0 6
			alice undo > nothing | 0 6`,
}

func TestStackScripts(t *testing.T) {
	for name, script := range stackScripts {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			for line := range strings.Lines(strings.TrimSpace(script)) {
				s.line(line)
			}
		})
	}
}

func (s *stage) line(line string) {
	s.t.Helper()
	do, want, _ := strings.Cut(line, ">")
	before := state(s.t, s.db)
	id, err := s.play(do)
	got := state(s.t, s.db)
	if err != nil {
		if id != 0 || got != before {
			s.t.Errorf("%s: %d, %s; it was %s", do, id, got, before)
		}
		switch {
		case errors.Is(err, undo.ErrNothing):
			got = "nothing"
		case errors.Is(err, batchlog.ErrConflict):
			got = "conflict"
		default:
			s.t.Fatalf("%s: %v", do, err)
		}
	}
	for _, steps := range []*undo.ActorStack{s.of("alice"), undo.Stack(s.db.DB, "actor", "alice")} { // a new one has folded it all at once
		u, r, err := steps.Next(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if got := strings.TrimSpace(fmt.Sprintf("%s | %d %d", got, u, r)); got != strings.TrimSpace(want) {
			s.t.Errorf("%s: %s; want %s", do, got, want)
		}
	}
}

// Two that use the same stack at once take back two steps, never the same one twice; also those that change nothing.
func TestStackTwice(t *testing.T) {
	for _, value := range []string{"%d", "same"} {
		db := openUndo(t)
		const steps = 60
		for i := range steps {
			v := value
			if value != "same" {
				v = fmt.Sprintf(value, i)
			}
			doAs(t, db, by("alice"), "a="+v)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		calls := map[batchlog.ID]int{}
		for range 3 {
			wg.Go(func() {
				s := undo.Stack(db.DB, "actor", "alice")
				for {
					id, err := s.Undo(t.Context())
					if errors.Is(err, undo.ErrNothing) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					calls[id]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		undone := map[string]int{}
		for c, err := range db.Tail(t.Context(), batchlog.TailOptions{From: batchlog.At(steps + 1), Until: 2 * steps}) {
			if err != nil {
				t.Fatal(err)
			}
			undone[c.Labels["undo"]]++
		}
		head, err := db.Head(t.Context())
		if err != nil || head != 2*steps || len(undone) != steps {
			t.Errorf("%s: %d commits, %d undone, %v", value, head, len(undone), err)
		}
		if got := state(t, db); got != "" {
			t.Errorf("%s: %s", value, got)
		}
	}
}
