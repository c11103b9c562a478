package batchlog

import "fmt"

// The limits of a database, in one place. Going over one is a *[LimitError].
const (
	// MaxKeyBytes bounds a key with the encoded path of its space in front: 64 KiB.
	MaxKeyBytes = 64 << 10
	// MaxValueBytes bounds a value that is no blob: 64 MiB less room for its key and the batch around it.
	MaxValueBytes = MaxBatchBytes - MaxKeyBytes - MaxMetaBytes - 64
	// MaxBatchBytes bounds a batch, encoded, with labels and token: 64 MiB. A chain is bounded by the disk.
	MaxBatchBytes = 64 << 20
	// MaxMetaBytes bounds the labels and the token of a batch, encoded: 64 KiB.
	MaxMetaBytes = 64 << 10
	// MaxTokenBytes bounds a token: 256 bytes.
	MaxTokenBytes = 256
	// MaxPathDepth bounds how deep spaces nest: 32 parts.
	MaxPathDepth = 32
	// MaxTxReads bounds the keys and ranges that one transaction may read: they are all remembered
	// to be validated.
	MaxTxReads = 1 << 20
	// MaxShared bounds the memory that keys and values of one iteration may share: 1 MiB, or the
	// size of a single commit or entry that is larger.
	MaxShared = 1 << 20
	// MaxBlobBytes bounds the size that a reference to a blob may name: 4 EiB. What bounds blobs is the disk.
	MaxBlobBytes = 1 << 62
	// MaxHookedChainBytes bounds what pre-commit hooks that need all of their ops at once are given of a chain: 32 MiB, encoded.
	MaxHookedChainBytes = 32 << 20
	// MaxHookAddedBytes bounds the memory of what pre-commit hooks add to one commit: 128 MiB. An op counts its encoded bytes and 256 more.
	MaxHookAddedBytes = 128 << 20
)

// The ways out of limits.
const (
	hintBlob  = "write it with PutBlob, or split it over several keys"
	hintBatch = "write it as a chain, or as several batches"
)

// A LimitError says which limit was passed, by how much, and the way out. It is an [ErrTooLarge].
type LimitError struct {
	What  string // what is too large: "key", "value", "batch", …
	Size  int64  // how large it is
	Limit int64  // how large it may be, in the same unit
	Hint  string // what to do instead
}

func (e *LimitError) Error() string {
	s := fmt.Sprintf("%s too large: %d, limit %d", e.What, e.Size, e.Limit)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Is reports whether target is [ErrTooLarge].
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }
