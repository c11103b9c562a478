package local

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/bytespace/batchlog/internal/waist"
)

// A walk looks up keys in a view that come in ascending order. Where they are close to each other that costs a step, not a search. It is not safe for concurrent use.
type walk struct {
	view waist.Snapshot
	high []byte // above all keys that are looked up

	cursor     waist.Cursor // nil: none yet
	key, value []byte       // where it stands, valid until it moves
	ended      bool         // it is behind the last key
}

// walkNear is how many steps are tried before a search.
const walkNear = 16

// get is the value of a key, which is not below the one before, valid until the next one is looked up; nil: it has none.
func (w *walk) get(ctx context.Context, key []byte) ([]byte, error) {
	for steps := 0; w.cursor != nil && !w.ended && bytes.Compare(w.key, key) < 0; steps++ {
		if steps == walkNear {
			if err := w.close(); err != nil {
				return nil, err
			}
			break
		}
		if err := w.next(); err != nil {
			return nil, err
		}
	}
	if w.cursor == nil {
		cursor, err := w.view.Scan(ctx, key, w.high, false)
		if err != nil {
			return nil, err
		}
		w.cursor = cursor
		if err := w.next(); err != nil {
			return nil, err
		}
	}
	if w.ended || !bytes.Equal(w.key, key) {
		return nil, nil
	}
	if w.value == nil {
		return []byte{}, nil
	}
	return w.value, nil
}

func (w *walk) next() (err error) {
	w.key, w.value, err = w.cursor.Next()
	if errors.Is(err, io.EOF) {
		w.ended, err = true, nil
	}
	return err
}

func (w *walk) close() (err error) {
	if w.cursor != nil {
		err = w.cursor.Close()
		w.cursor = nil
	}
	return err
}
