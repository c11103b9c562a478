package store

import (
	"bytes"
	"errors"
	"slices"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/cockroachdb/pebble/v2"
)

// An inverter makes the inverses of commits that are applied as one, from what the store has before. The applier owns it.
type inverter struct {
	sizes   inverseSizes
	latest  latest
	writes  []write // of all commits
	kept    []write // those that change something, by commit and key
	ends    []int   // of each commit in kept
	old     []byte  // memory of old values
	ops     []byte
	blocks  blockWriter
	encoded []byte // the puts that make the inverses, for a Pebble batch
	count   int    // of these puts
	blobs   blobNotes
}

// A write is what one commit does to one key.
type write struct {
	key    []byte
	commit int // index of the commit in its group
	// What the commit leaves under the key, and what was there before it; nil: nothing.
	value, old []byte
}

// invert makes the inverses of as many of the records, none of which is a chain, as it can at once, which is at least one, or none if the first one takes
// more than that: it deletes a range, or what it overwrites is large.
func (s *Store) invert(records []wire.Record) (n int, err error) {
	v := &s.undo.inverter
	v.sizes = s.undo.sizes
	v.reset(records[0].ID)
	if n, err = v.gather(records); n == 0 || err != nil {
		return 0, err
	}
	for {
		fits, err := v.readOld(s.db)
		if fits && err == nil {
			v.noteLatest()
			v.sortByCommit(n)
			if fits, err = v.encode(records[:n], s.opts.InverseLimit); !fits {
				v.latest.reset() // it is ahead of the store
			}
		}
		if err != nil {
			return 0, err
		}
		if fits {
			return n, nil
		}
		if n == 1 {
			return 0, nil
		}
		v.reset(records[0].ID)
		if n, err = v.gather(records[:n/2]); err != nil {
			return 0, err
		}
	}
}

func (v *inverter) reset(first batchlog.ID) {
	clear(v.writes)
	clear(v.kept)
	if cap(v.old) > 1<<20 {
		v.old = nil
	}
	v.writes, v.kept, v.ends, v.old, v.encoded, v.count = v.writes[:0], v.kept[:0], v.ends[:0], v.old[:0], v.encoded[:0], 0
	v.blobs = nil
	v.blocks.size = v.sizes.block
	v.blocks.next, v.blocks.commits, v.blocks.body = first, 0, v.blocks.body[:0]
}

// gather collects the writes of the records before the first one that deletes a range.
func (v *inverter) gather(records []wire.Record) (n int, err error) {
	for n := range records {
		r := &records[n]
		before := len(v.writes)
		rest := r.Ops
		for range r.Count {
			kind, key, value, next, err := wire.NextOp(rest)
			if err != nil {
				return 0, err
			}
			rest = next
			switch {
			case systemKey(key):
			case kind == batchlog.OpDeleteRange:
				v.writes = v.writes[:before]
				return n, nil
			case kind == batchlog.OpDelete:
				v.writes = append(v.writes, write{key: key, commit: n})
			default:
				v.writes = append(v.writes, write{key: key, commit: n, value: present(value)})
			}
		}
	}
	return len(records), nil
}

// systemKey reports whether a key is one of the system's, which are not taken back.
func systemKey(key []byte) bool { return len(key) > 0 && key[0] < userKeys }

// userKeys is what the keys of spaces begin with: the tag of an array.
const userKeys = 0xa0

// present is a value that is not nil.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// readOld finds out what each write overwrites, in the order of keys, and keeps those that change something; fits is false if that is
// too much for memory.
func (v *inverter) readOld(db *pebble.DB) (fits bool, err error) {
	// Stable: of the writes of one key, those of earlier commits come first, and of one commit the last op counts.
	slices.SortStableFunc(v.writes, func(a, b write) int { return bytes.Compare(a.key, b.key) })
	v.kept, v.old = v.kept[:0], v.old[:0]
	for i := 0; i < len(v.writes); {
		key := v.writes[i].key
		now, err := v.get(db, key)
		if err != nil {
			return false, err
		}
		if len(v.old) > v.sizes.memory {
			return false, nil
		}
		for i < len(v.writes) && bytes.Equal(v.writes[i].key, key) {
			w := v.writes[i]
			for i++; i < len(v.writes) && v.writes[i].commit == w.commit && bytes.Equal(v.writes[i].key, key); i++ {
				w = v.writes[i]
			}
			if w.old = now; !same(w.old, w.value) {
				v.kept = append(v.kept, w)
			}
			now = w.value
		}
	}
	return true, nil
}

// noteLatest notes what the commits leave.
func (v *inverter) noteLatest() {
	for i, w := range v.writes {
		if i+1 == len(v.writes) || !bytes.Equal(v.writes[i+1].key, w.key) {
			v.latest.put(w.key, w.value, v.sizes.latest)
		}
	}
}

// same reports whether two values are, or both are none.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// get is the value that the store has for a key, in the memory of old values, or nil.
func (v *inverter) get(db *pebble.DB, key []byte) ([]byte, error) {
	if value, known := v.latest.get(key); known {
		if value == nil {
			return nil, nil
		}
		return v.keep(value), nil
	}
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, readError(err)
	}
	return v.keep(value), closer.Close()
}

// keep copies a value into the memory of old values.
func (v *inverter) keep(value []byte) []byte {
	if len(value) > cap(v.old)-len(v.old) && len(v.old) > 0 {
		v.old = append(make([]byte, 0, max(2*cap(v.old), len(v.old)+len(value))), v.old...) // those given out stay where they are
	}
	start := len(v.old)
	v.old = append(v.old, value...)
	return present(v.old[start:len(v.old):len(v.old)])
}

// sortByCommit brings what is kept into the order of commits; within one the order of keys stays.
func (v *inverter) sortByCommit(commits int) {
	v.ends = append(v.ends[:0], make([]int, commits)...)
	for _, w := range v.kept {
		v.ends[w.commit]++
	}
	sum := 0
	for i, n := range v.ends {
		v.ends[i] = sum // where it begins
		sum += n
	}
	sorted := append(v.writes[:0], v.kept...) // the writes are not needed any more
	for _, w := range v.kept {
		sorted[v.ends[w.commit]] = w
		v.ends[w.commit]++
	}
	v.writes, v.kept = v.kept, sorted
}

// encode makes blocks of what is kept; fits is false if an inverse is larger than the limit, or the only one and too large for a block.
func (v *inverter) encode(records []wire.Record, limit int64) (fits bool, err error) {
	start := 0
	for i, end := range v.ends {
		v.ops = v.ops[:0]
		for _, w := range v.kept[start:end] {
			if v.ops, err = v.appendOp(v.ops, records[i].ID, w); err != nil {
				return false, err
			}
		}
		if len(v.ops) > v.sizes.inline && len(records) == 1 || int64(len(v.ops)) > limit {
			return false, nil
		}
		if v.blocks.add(inverse{form: formInline, count: end - start, size: int64(len(v.ops)), ops: v.ops}) {
			v.takeBlock()
		}
		start = end
	}
	v.takeBlock()
	return true, nil
}

// appendOp appends what takes a write back.
func (v *inverter) appendOp(dst []byte, id batchlog.ID, w write) ([]byte, error) {
	if w.old == nil {
		return wire.AppendOp(dst, batchlog.OpDelete, w.key, nil), nil
	}
	return wire.AppendOp(dst, batchlog.OpPut, w.key, w.old), v.blobs.note(id, batchlog.OpPut, w.old)
}

func (v *inverter) takeBlock() {
	if key, value, ok := v.blocks.take(); ok {
		v.encoded = appendSet(v.encoded, key, value)
		v.count++
	}
}
