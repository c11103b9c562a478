package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/store"
	"github.com/bytespace/batchlog/internal/wire"
)

// compareInverses compares the inverses that the store has with those that the scratch store has made, which are those of hashes. Of a large chain, which is not
// applied to the scratch store at once, and where the log does not go back to commit 1, only the blobs are checked.
func (f *fold) compareInverses(ctx context.Context) error {
	rows, err := f.engine.store.Inverses()
	if err != nil {
		f.report.addError(err)
		return nil
	}
	large, err := f.engine.store.TooLarge()
	if err != nil {
		f.report.addError(err)
		return nil
	}
	for _, row := range rows {
		row.First, row.Last = max(row.First, f.report.First), min(row.Last, f.report.Last)
		for _, id := range large { // of these there is nothing to compare
			if row.First <= id && id <= row.Last {
				if err := f.compareRow(ctx, batchlog.IDRange{First: row.First, Last: id - 1}); err != nil {
					return err
				}
				row.First = id + 1
			}
		}
		if err := f.compareRow(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

func (f *fold) compareRow(ctx context.Context, row batchlog.IDRange) error {
	if row.First > row.Last {
		return nil
	}
	have, stopHave := iter.Pull2(inverseOps(ctx, f.engine.store, row))
	defer stopHave()
	made := row
	if !f.report.Complete {
		made.Last = made.First - 1
	}
	want, stopWant := iter.Pull2(inverseOps(ctx, f.scratch, made))
	defer stopWant()
	h, herr, hok := have()
	w, werr, wok := want()
	skip := batchlog.ID(0) // a commit with a problem, or that can't be compared
	for hok || wok {
		if err := errors.Join(herr, werr); err != nil {
			if ctx.Err() != nil || werr != nil {
				return err
			}
			if missing := new(batchlog.InverseError); !errors.As(err, &missing) || missing.ID >= f.engine.log.Oldest() { // else it has just been trimmed
				f.report.addError(err)
			}
			return nil
		}
		// The newest commit comes first.
		switch id := max(h.id, w.id); {
		case !f.report.Complete || f.chains[id]:
			skip = id
		case id == skip:
		case h.id != w.id || !bytes.Equal(h.key, w.key):
			f.report.add(Problem{What: fmt.Sprintf("the inverse of commit %d is about other keys than the commit", id), ID: id})
			skip = id
		case h.kind != w.kind || h.kind == batchlog.OpPut && !bytes.Equal(w.value[1:], hashOf(h.value)):
			f.wrong(fmt.Sprintf("the inverse of commit %d has another value than the log", id), h.key)
			skip = id
		}
		takeHave, takeWant := hok && h.id >= w.id, wok && w.id >= h.id
		if takeHave {
			if h.kind == batchlog.OpPut {
				if err := f.checkBlob(h.id, h.key, h.value); err != nil {
					return err
				}
			}
			h, herr, hok = have()
		}
		if takeWant {
			w, werr, wok = want()
		}
	}
	if f.report.Complete {
		f.report.Inverses += int64(row.Last - row.First + 1)
	}
	return nil
}

// An inverseOp is one of the inverse of a commit; the zero value comes after the last one.
type inverseOp struct {
	id         batchlog.ID
	kind       batchlog.OpKind
	key, value []byte
}

// inverseOps yields the ops of the inverses of a row, the newest commit first. What it yields is valid until the next one.
func inverseOps(ctx context.Context, s *store.Store, row batchlog.IDRange) iter.Seq2[inverseOp, error] {
	return func(yield func(inverseOp, error) bool) {
		enough := errors.New("enough")
		err := s.EachInverse(ctx, row.First-1, row.Last, func(id batchlog.ID, ops []byte, count int) error {
			return wire.EachOp(ops, count, func(kind batchlog.OpKind, key, value []byte) error {
				if !yield(inverseOp{id, kind, key, value}, nil) {
					return enough
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, enough) {
			yield(inverseOp{}, err)
		}
	}
}
