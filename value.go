package batchlog

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"

	"github.com/bytespace/batchlog/internal/wire"
)

// A BlobRef names a blob: a value that is kept outside of log and store, under the hash of its content. What log and store hold
// is the reference. See [DB.StoreBlob].
type BlobRef struct {
	Hash [32]byte // SHA-256 of the content
	Size int64    // of the content, in bytes
}

// String is the hash in hex.
func (r BlobRef) String() string { return hex.EncodeToString(r.Hash[:]) }

// load is the value that stored stands for, read if it is a blob; own says that it does not share memory with stored.
func (db *DB) load(ctx context.Context, s *Space, k Key, stored []byte) (value []byte, own bool, err error) {
	value, ref, err := parseValue(stored)
	if err != nil {
		return nil, false, valueError(s, k, err)
	}
	if ref == nil {
		return value, false, nil
	}
	value, err = db.loadBlob(ctx, *ref)
	return value, true, valueError(s, k, err)
}

// valueError is err with the key whose value can't be had.
func valueError(s *Space, k Key, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("value of %s in space %s: %w", Key(bytes.Clone(k)), s, err)
}

// parseValue is wire.ParseValue in the words of the front.
func parseValue(stored []byte) (value []byte, ref *BlobRef, err error) {
	value, stands, err := wire.ParseValue(stored)
	return value, (*BlobRef)(stands), err
}

func appendBlobRef(dst []byte, r BlobRef) []byte { return wire.AppendBlobRef(dst, wire.BlobRef(r)) }
