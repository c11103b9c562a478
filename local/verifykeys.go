package local

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// compareKeys walks over store and scratch store side by side.
func (f *fold) compareKeys(ctx context.Context) error {
	scratch, err := f.scratch.Snapshot()
	if err != nil {
		return err
	}
	defer scratch.Close()
	want, err := newSide(ctx, scratch, firstKey)
	if err != nil {
		return err
	}
	defer want.cursor.Close()
	left := int64(0) // keys of the log that were not compared
	for from := firstKey; from != nil; {
		have, err := newSide(ctx, f.view, from)
		if err == nil {
			err = f.compareFrom(ctx, have, want)
		}
		if have != nil {
			err = errors.Join(err, have.cursor.Close())
		}
		if err == nil {
			break
		}
		if !errors.Is(err, batchlog.ErrCorrupt) {
			return err
		}
		f.damaged(err)
		// On behind it, where that can be read again: some keys of the log farther, and, if it can't, twice as many.
		var skipped int64
		if from, skipped, err = f.behindDamage(ctx, want); err != nil {
			return err
		}
		left += skipped
	}
	if left > 0 {
		f.report.add(Problem{What: fmt.Sprintf("%d keys of the log were not compared with the store, which can't be read there", left)})
	}
	return nil
}

// firstKey is behind the store's own keys.
var firstKey = []byte{1}

// behindDamage moves want to a key from which on the store can be read; from is nil if there is none.
func (f *fold) behindDamage(ctx context.Context, want *side) (from []byte, skipped int64, err error) {
	for step := int64(1); want.ok; step *= 2 {
		for n := int64(0); n < step && want.ok; n++ {
			if err := want.next(); err != nil {
				return nil, skipped, err
			}
			skipped++
		}
		if !want.ok {
			break
		}
		have, err := newSide(ctx, f.view, want.key)
		if have != nil {
			err = errors.Join(err, have.cursor.Close())
		}
		if err == nil {
			return bytes.Clone(want.key), skipped, nil
		}
		if !errors.Is(err, batchlog.ErrCorrupt) {
			return nil, skipped, err
		}
		f.damaged(err)
	}
	return nil, skipped, nil
}

// compareFrom compares both sides from where they stand.
func (f *fold) compareFrom(ctx context.Context, have, want *side) error {
	for n := int64(0); have.ok || want.ok; n++ {
		if n%4096 == 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			f.progress(Progress{Stage: "keys", Done: f.report.Keys, Unit: "keys"})
		}
		if err := f.compareNext(have, want); err != nil {
			return err
		}
	}
	return nil
}

// compareNext compares the lower key of the two sides and moves on.
func (f *fold) compareNext(have, want *side) error {
	order := bytes.Compare(have.key, want.key)
	switch {
	case !want.ok:
		order = -1
	case !have.ok:
		order = 1
	}
	switch {
	case order < 0:
		if f.report.Complete {
			f.wrong("the store has a key that the log has not", have.key)
		} else if f.wasDeleted(have.key) {
			f.wrong("the store has a key that the log has deleted", have.key)
		}
	case order > 0:
		if want.value[0] == scratchPut {
			f.wrong("the store lacks a key that the log has", want.key)
		}
	case want.value[0] == scratchDeleted:
		f.wrong("the store has a key that the log has deleted", have.key)
	case !bytes.Equal(want.value[1:], hashOf(have.value)):
		f.wrong("the store has another value than the log", have.key)
	}
	if order <= 0 {
		f.report.Keys++
		if err := f.checkBlob(0, have.key, have.value); err != nil {
			return err
		}
	}
	if order >= 0 { // before the store's, which may be damaged
		if err := want.next(); err != nil {
			return err
		}
	}
	if order <= 0 {
		return have.next()
	}
	return nil
}

func (f *fold) wrong(what string, stored []byte) {
	p := Problem{What: what, Space: "?", Key: hex.EncodeToString(stored)}
	if path, key, err := wire.SplitKey(stored); err == nil {
		p.Space, p.Key = batchlog.Key(path).String(), batchlog.Key(key).String()
	}
	f.report.add(p)
}

func (f *fold) wasDeleted(key []byte) bool {
	for _, d := range f.deleted {
		if bytes.Compare(d.Low, key) <= 0 && bytes.Compare(key, d.High) < 0 {
			return true
		}
	}
	return false
}

// A side is a cursor with the entry that it stands on.
type side struct {
	cursor     waist.Cursor
	key, value []byte
	ok         bool
}

// newSide is a side that stands on the first key from low on. After an error of the first one it has to be closed as well, if there is one.
func newSide(ctx context.Context, s waist.Snapshot, low []byte) (*side, error) {
	c, err := s.Scan(ctx, low, []byte{0xff}, false)
	if err != nil {
		return nil, err
	}
	d := &side{cursor: c}
	return d, d.next()
}

func (d *side) next() error {
	var err error
	d.key, d.value, err = d.cursor.Next()
	d.ok = err == nil
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
