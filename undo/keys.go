package undo

import (
	"bytes"
	"errors"
	"io"
	"sort"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
)

// keyed is changes in the order of their keys, to be searched.
type keyed []change

// from is the index of the first key that is not below key.
func (k keyed) from(key []byte) int {
	return sort.Search(len(k), func(i int) bool { return bytes.Compare(k[i].key, key) >= 0 })
}

func (k keyed) find(key []byte) (i int, ok bool) {
	i = k.from(key)
	return i, i < len(k) && bytes.Equal(k[i].key, key)
}

// eachOp calls visit for all ops of a reader, and closes it.
func eachOp(r wire.OpReader, visit func(kind batchlog.OpKind, key, value []byte) error) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		ops, count, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = wire.EachOp(ops, count, visit)
		}
		if err != nil {
			return err
		}
	}
}

// spacesMax bounds the spaces that a tail is asked for: with more, all is looked at.
const spacesMax = 64

// spacesOf are the spaces of some keys; nil if they are many.
func spacesOf(db *batchlog.DB, changes []change) (spaces []*batchlog.Space, err error) {
	for i := 0; i < len(changes); {
		s, _, err := db.Inside().Split(changes[i].key)
		if err != nil {
			return nil, err
		}
		if spaces = append(spaces, s); len(spaces) > spacesMax {
			return nil, nil
		}
		for i < len(changes) && bytes.HasPrefix(changes[i].key, s.Stored()) {
			i++
		}
	}
	return spaces, nil
}
