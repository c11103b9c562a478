package simtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// The hooks of programs with everything on. Each does something that the model can say from the state alone: an index of what is in one space, the number of
// commits there, and values that are changed, dropped or refused on their way.

const (
	stamp      = " stamped"
	keyDropped = "drop" // of a put that the hook takes out
	keyRefused = "no"   // of a put for which the hook refuses the commit
	keyCount   = "n"
)

// mirrored is what stands in the index for a value: its number, as values begin with one that is theirs alone.
func mirrored(value string) string {
	number, _, _ := strings.Cut(value, " ")
	return number
}

func stamped(value string) string {
	if strings.HasSuffix(value, stamp) {
		return value
	}
	return value + stamp
}

// bindHooks binds them to a database.
func (g *together) bindHooks(db *local.DB) {
	hooked, mirror, count, stampedSpace := g.spaces[spaceHooked], g.spaces[spaceMirror], g.spaces[spaceCount], g.spaces[spaceStamped]
	index := func(tx *batchlog.Tx, ops []batchlog.Op) error { return mirrorOps(tx, mirror, ops) }
	if g.streamed = g.rng.IntN(2) == 0; g.streamed {
		db.PreCommitStreamed(hooked, index)
	} else {
		db.PreCommit(hooked, index)
	}
	db.PreCommit(hooked, func(tx *batchlog.Tx, _ []batchlog.Op) error {
		n := 0
		v, err := tx.Get(count, batchlog.Key(keyCount))
		if err == nil {
			n, err = strconv.Atoi(string(v))
		}
		if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
			return err
		}
		tx.Put(count, batchlog.Key(keyCount), []byte(strconv.Itoa(n+1)))
		return nil
	})
	db.PreCommit(stampedSpace, stampOps)
	g.bindPost(db)
}

// mirrorOps does to the index what ops do.
func mirrorOps(tx *batchlog.Tx, mirror *batchlog.Space, ops []batchlog.Op) error {
	for _, op := range ops {
		switch op.Kind {
		case batchlog.OpPut:
			value, err := op.Load(context.Background())
			if err != nil {
				return err
			}
			tx.Put(mirror, op.Key, []byte(mirrored(string(value))))
		case batchlog.OpDelete:
			tx.Delete(mirror, op.Key)
		default:
			tx.DeleteRange(mirror, batchlog.Range{Low: op.Key, High: op.High})
		}
	}
	return nil
}

func stampOps(tx *batchlog.Tx, ops []batchlog.Op) error {
	for _, op := range ops {
		if op.Kind != batchlog.OpPut {
			continue
		}
		switch string(op.Key) {
		case keyRefused:
			return batchlog.Refuse(op, "this key is refused")
		case keyDropped:
			if err := tx.Drop(op); err != nil {
				return err
			}
			continue
		}
		value, err := op.Load(context.Background())
		if err != nil {
			return err
		}
		if with := stamped(string(value)); with != string(value) {
			if err := tx.Replace(op, []byte(with)); err != nil {
				return err
			}
		}
	}
	return nil
}

// hookEffects is what the hooks make of a batch, in the order of its ops in the log.
func hookEffects(now state, c *commit) {
	var ops, added []op
	for _, o := range c.ops {
		switch {
		case o.space == spaceHooked:
			m := o
			m.space, m.ref = spaceMirror, nil
			if o.kind == batchlog.OpPut {
				m.value = mirrored(o.value)
			}
			added = append(added, m)
		case o.space == spaceStamped && o.kind == batchlog.OpPut:
			if o.key == keyDropped {
				continue
			}
			o.value = stamped(o.value)
		}
		ops = append(ops, o)
	}
	if len(added) > 0 {
		added = append(added, op{kind: batchlog.OpPut, space: spaceCount, key: keyCount, value: strconv.Itoa(now.count() + 1)})
	}
	c.ops = append(ops, added...)
}

// count is how many commits there were in the hooked space.
func (s state) count() int {
	n, _ := strconv.Atoi(s[place{spaceCount, keyCount}]) // 0 without one
	return n
}

// chainEffects makes of want, what a chain does to now, what it is with what hooks do. s is the commit, which says whether it has touched the hooked space.
//
// What a chain brings back and a hook counts as well is one of several numbers: they need not say which is right. open: want is what there is.
func chainEffects(now, want state, s *seen, open bool) {
	touched, number := false, place{spaceCount, keyCount}
	var last *op
	for i, o := range s.list {
		touched = touched || o.space == spaceHooked
		if o.space == spaceCount && o.kind == batchlog.OpPut && o.key == keyCount {
			last = &s.list[i]
		}
	}
	for p := range want {
		if p.space == spaceMirror {
			delete(want, p)
		}
	}
	for p, v := range want {
		switch p.space {
		case spaceHooked:
			want[place{spaceMirror, p.key}] = mirrored(v)
		case spaceStamped:
			want[p] = stamped(v)
		}
	}
	if !touched {
		return
	}
	choices := []string{fmt.Sprint(now.count() + 1), fmt.Sprint(want.count() + 1)}
	if v, there := want[number]; there && (open || v != now[number]) {
		choices = append(choices, v)
	}
	want[number] = choices[0]
	for _, n := range choices {
		if last != nil && last.value == n {
			want[number] = n
		}
	}
}
