package undo

import (
	"bytes"
	"context"
	"errors"

	"github.com/bytespace/batchlog"
)

// eachChange visits what a commit has changed, in the order of keys: what it has overwritten and what it has left, side by side. wanted, if it is not nil,
// says of which keys. What visit is given is valid until it returns. Memory is bounded, but for what the commit takes that is no chain, and its largest entry.
func eachChange(ctx context.Context, db *batchlog.DB, c *batchlog.Commit, wanted func(key []byte) bool, visit func(c *change) error) (err error) {
	ops, err := openOps(ctx, c.Inside().Record())
	var limit *batchlog.LimitError
	if errors.As(err, &limit) {
		return eachPiece(ctx, db, c, wanted, visit)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ops.Close()) }()
	return eachInverse(ctx, db, c.ID, func(key, old []byte) error {
		if wanted != nil && !wanted(key) {
			return nil
		}
		left, _, err := ops.at(key)
		if err != nil {
			return err
		}
		return visit(&change{key, old, left})
	})
}

// pieceBytes bounds the changes of a commit that are in memory at once where it has to be read again for each piece.
const pieceBytes = 8 << 20

// errPiece says that what a commit has left under the keys of a piece is too large.
var errPiece = errors.New("piece too large")

// eachPiece is eachChange for a chain that has more sorted stretches than can be gone through side by side: it is read again for each piece of
// its changes.
func eachPiece(ctx context.Context, db *batchlog.DB, c *batchlog.Commit, wanted func(key []byte) bool, visit func(c *change) error) error {
	var piece []change
	size := 0
	err := eachInverse(ctx, db, c.ID, func(key, old []byte) error {
		if wanted != nil && !wanted(key) {
			return nil
		}
		piece = append(piece, change{key: bytes.Clone(key), old: cloneValue(old)})
		if size += len(key) + len(old) + changeBytes; size < pieceBytes {
			return nil
		}
		err := visitPiece(ctx, c, piece, visit)
		piece, size = nil, 0
		return err
	})
	if err != nil {
		return err
	}
	return visitPiece(ctx, c, piece, visit)
}

// visitPiece visits some changes, of which it is not known yet what the commit has left: half of them at a time if that is much.
func visitPiece(ctx context.Context, c *batchlog.Commit, piece []change, visit func(c *change) error) error {
	size := 0
	err := findLeft(ctx, c, piece, func(ch *change, left []byte) error {
		size += len(left) - len(ch.left)
		ch.left = nil
		if size > pieceBytes && len(piece) > 1 {
			return errPiece
		}
		ch.left = cloneValue(left) // else all of the chain around it would be held
		return nil
	})
	if errors.Is(err, errPiece) {
		half := len(piece) / 2
		if err := visitPiece(ctx, c, piece[:half], visit); err != nil {
			return err
		}
		return visitPiece(ctx, c, piece[half:], visit)
	}
	for i := range piece {
		if err == nil {
			err = visit(&piece[i])
		}
	}
	return err
}
