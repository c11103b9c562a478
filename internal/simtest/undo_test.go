package simtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// What undo promises. The log adds up to the state at every id, so the inverse of a commit must be the difference between the states at
// it and right before it, and a revert must give the state that it is asked for.

// A keeping is what a run knows of which commits must have inverses.
type keeping struct {
	must []batchlog.IDRange // commits that were made while undo was on, or filled in later, as long as the log has them
	on   bool               // further ones must have some
	from batchlog.ID        // the first of these
	sure bool               // the settings are known to say so, or not
	have []batchlog.IDRange // what the status has said since the database was opened
	all  batchlog.ID        // up to here a backfill without a limit has made even the largest
	// limit is Options.InverseBytes, unless a backfill may have kept more.
	limit int64
}

// turn takes note of what the settings are for certain: sure is false if a change of them has failed.
func (k *keeping) turn(on, sure bool, head batchlog.ID) {
	if k.on && !(on && sure) && head >= k.from {
		k.must = append(k.must, batchlog.IDRange{First: k.from, Last: head})
	}
	if !k.on && on && sure {
		k.from = head + 1
	}
	k.on, k.sure = on && sure, sure
}

// filled takes note of a backfill that has come to its end.
func (k *keeping) filled(head batchlog.ID, o batchlog.BackfillOptions) {
	k.must = append(k.must, batchlog.IDRange{First: 1, Last: head})
	if o.Limit == 0 {
		k.all = head
	}
}

// covers says whether all from first to last are in one of the ranges.
func covers(ranges []batchlog.IDRange, first, last batchlog.ID) bool {
	return first > last || slices.ContainsFunc(ranges, func(r batchlog.IDRange) bool { return r.First <= first && last <= r.Last })
}

// check says what is wrong with a status.
func (k *keeping) check(st *batchlog.Status) error {
	have := st.Undo.Have
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("undo is %+v, applied %d, oldest %d: %s", st.Undo, st.Applied, st.Oldest, fmt.Sprintf(format, args...))
	}
	last := batchlog.ID(0)
	for i, r := range have {
		if r.First < st.Oldest || r.Last < r.First || r.Last > st.Applied || i > 0 && r.First <= last+1 {
			return wrong("%v is no range", r)
		}
		last = r.Last
	}
	if last != st.Undo.Ready {
		return wrong("the last one is %d", last)
	}
	if k.sure && st.Undo.On != k.on {
		return wrong("it was turned on: %t", k.on)
	}
	must := slices.Concat(k.must, k.have)
	if k.on {
		must = append(must, batchlog.IDRange{First: k.from, Last: st.Applied})
	}
	for _, r := range must {
		if !covers(have, max(r.First, st.Oldest), min(r.Last, st.Applied)) {
			return wrong("%v should be there", r)
		}
	}
	k.have = have
	return nil
}

// A change is what a commit has done to a place.
type change struct {
	old, now string
	had, has bool
}

// changes is what a commit does to a state, which becomes that after it.
func (s state) changes(c *commit) map[place]change {
	all := map[place]change{}
	note := func(p place) {
		if _, known := all[p]; !known {
			old, had := s[p]
			all[p] = change{old: old, had: had}
		}
	}
	for _, o := range c.ops {
		if o.kind != batchlog.OpDeleteRange {
			note(place{o.space, o.key})
		} else {
			for p := range s {
				if p.space == o.space && p.key >= o.key && (o.open || p.key < o.high) {
					note(p)
				}
			}
		}
		s.op(o)
	}
	for p, ch := range all {
		ch.now, ch.has = s[p]
		all[p] = ch
	}
	return all
}

// readInverse is what db says that a commit has overwritten: the old values by place, as they are stored; nil: there was none.
func readInverse(r *run, id batchlog.ID) (inverse map[place][]byte, size int64, err error) {
	ctx, cancel := r.context()
	defer cancel()
	in, err := r.db.Inverse(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	inverse = map[place][]byte{}
	last := ""
	for {
		ops, count, err := in.Next()
		if errors.Is(err, io.EOF) {
			return inverse, size, nil
		}
		if err != nil {
			return nil, 0, err
		}
		size += int64(len(ops))
		err = wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
			if string(key) <= last || kind == batchlog.OpDeleteRange {
				return fmt.Errorf("inverse of commit %d: %s %x comes after %x", id, kind, key, last)
			}
			last = string(key)
			s, k, err := r.db.Inside().Split(key)
			if err != nil {
				return err
			}
			p := place{slices.Index(worldTexts(), spaceText(s)), string(k)}
			inverse[p] = nil
			if kind == batchlog.OpPut {
				inverse[p] = append([]byte{}, value...)
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
}

// inverseIsDifference says how an inverse is not what a commit has overwritten.
func (r *run) inverseIsDifference(id batchlog.ID, inverse map[place][]byte, want map[place]change) error {
	for p, stored := range inverse {
		ch, touched := want[p]
		if !touched || (stored != nil) != ch.had {
			return fmt.Errorf("inverse of commit %d: %v is %.60q; it had been there: %t, was touched: %t", id, p, stored, ch.had, touched)
		}
		if err := r.isStored(stored, ch.old); err != nil {
			return fmt.Errorf("inverse of commit %d: %v: %w", id, p, err)
		}
		// The same value may be stored as a blob or not.
		if ch.had == ch.has && ch.old == ch.now && len(ch.old) < batchlog.MinBlobBytes {
			return fmt.Errorf("inverse of commit %d: %v, which it has not changed", id, p)
		}
	}
	for p, ch := range want {
		if _, ok := inverse[p]; !ok && (ch.had != ch.has || ch.old != ch.now) {
			return fmt.Errorf("inverse of commit %d lacks %v, which was %.60q, %t", id, p, ch.old, ch.had)
		}
	}
	return nil
}

// isStored says how a stored value is not this one. A blob must be there.
func (r *run) isStored(stored []byte, value string) error {
	if stored == nil {
		return nil
	}
	plain, ref, err := wire.ParseValue(stored)
	switch {
	case err != nil:
		return err
	case ref == nil && string(plain) != value:
		return fmt.Errorf("%.60q, want %.60q", plain, value)
	case ref != nil && (ref.Hash != sha256.Sum256([]byte(value)) || ref.Size != int64(len(value))):
		return fmt.Errorf("blob %s, want %.60q", ref, value)
	case ref != nil:
		hash := hex.EncodeToString(ref.Hash[:])
		if _, err := r.disk.mem.Stat("data/db/blobs/" + hash[:2] + "/" + hash + ".blob"); err != nil {
			return fmt.Errorf("blob %s: %w", ref, err)
		}
	}
	return nil
}

// checkInverses asserts that every inverse that there should be is there, and what it should be.
func (r *run) checkInverses() {
	r.t.Helper()
	armed := r.disk.disarm()
	defer r.disk.arm(armed)
	ctx, cancel := bounded(patience)
	defer cancel()
	st, err := r.db.Status(ctx)
	if err != nil && r.excused(err) {
		return
	}
	r.must("status", err)
	s := state{}
	for i := range r.model.commits {
		id := batchlog.ID(i + 1)
		want := s.changes(&r.model.commits[i])
		inverse, size, err := readInverse(r, id)
		var missing *batchlog.InverseError
		switch {
		case err == nil:
			r.must("inverse", r.inverseIsDifference(id, inverse, want))
			if r.kept.limit > 0 && size > r.kept.limit {
				r.t.Fatalf("step %d: inverse of commit %d takes %d bytes, the limit is %d", r.step, id, size, r.kept.limit)
			}
			r.met["inverses"]++
		case errors.As(err, &missing) && missing.ID == id:
			r.met["no inverse"]++
			if covers(st.Undo.Have, id, id) && (missing.Limit == 0 || mostBytes(want) <= missing.Limit) || missing.Gone != (id < st.Oldest) ||
				!missing.Gone && id <= r.kept.all {
				r.t.Fatalf("step %d: inverse of commit %d: %v, of at most %d bytes; undo is %+v, oldest %d", r.step, id, err, mostBytes(want), st.Undo, st.Oldest)
			}
		case r.excused(err):
			return
		default:
			r.must("inverse", err)
		}
	}
}

// mostBytes is what an inverse takes at most: its values are no blobs.
func mostBytes(want map[place]change) (size int64) {
	const more = 100 // for the path, lengths and kind
	for p, ch := range want {
		size += int64(len(p.key) + len(ch.old) + more)
	}
	return size
}

// A spaceRevert brings a space, with all in it, back to a commit.
type spaceRevert struct {
	space int
	to    batchlog.ID
	then  state // at that commit
}

// apply makes of out, which is base, what the revert makes of it.
func (v *spaceRevert) apply(out state) {
	for p := range out {
		if within(p.space, v.space) && p.space < spaceDerived {
			delete(out, p)
		}
	}
	for p, value := range v.then {
		if within(p.space, v.space) && p.space < spaceDerived {
			out[p] = value
		}
	}
}
