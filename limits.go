package batchlog

import (
	"fmt"

	"github.com/bytespace/batchlog/internal/wire"
)

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
	// MaxHookDepth bounds how far ops that hooks add may set off further hooks.
	MaxHookDepth = 8
	// MaxBlobBytes bounds the size that a reference to a blob may name: 4 EiB. What bounds blobs is the disk.
	MaxBlobBytes = wire.MaxBlobBytes
	// MaxHookedChainBytes bounds what pre-commit hooks that need all of their ops at once are given of a chain: 32 MiB, encoded.
	MaxHookedChainBytes = 32 << 20
	// MaxHookAddedBytes bounds the memory of what pre-commit hooks add to one commit: 128 MiB. An op counts its encoded bytes and 256 more.
	MaxHookAddedBytes = 128 << 20
)

// A Limit is a bound that going over is a *[LimitError].
type Limit struct {
	What string // as in LimitError.What
	Max  int64  // bytes, unless What says what is counted
	Hint string // what to do instead
}

// The limits that all engines keep. Each check, wherever it stands, is by one of these.
var (
	LimitKey         = Limit{"key", MaxKeyBytes, "the limit includes the path of the space"}
	LimitValue       = Limit{"value", MaxValueBytes, "write it with PutBlob, or split it over several keys"}
	limitLoad        = Limit{"value", MaxValueBytes, "it is a blob: read it with Blob"}
	limitBlob        = Limit{"blob", MaxBlobBytes, ""}
	LimitBatch       = Limit{"batch", MaxBatchBytes, "write it as a chain, or as several batches"}
	limitHooked      = Limit{"batch with what hooks added", MaxBatchBytes, "write it as a chain, or as several batches"}
	limitMeta        = Limit{"labels", MaxMetaBytes, "keep large texts in values"}
	limitToken       = Limit{"token", MaxTokenBytes, "use a hash of it"}
	limitPath        = Limit{"path", MaxKeyBytes, "put more into the key, or into the value"}
	limitPathDepth   = Limit{"path depth", MaxPathDepth, "put more into the key"}
	limitTxReads     = Limit{"reads of a transaction", MaxTxReads, "scan ranges, or read in a View"}
	limitHookAdded   = Limit{"memory of what hooks added to a commit", MaxHookAddedBytes, "write smaller batches, and see that hooks do not set off one another for ever"}
	limitHookDepth   = Limit{"depth of hooks", MaxHookDepth, "let hooks not set off one another in circles"}
	limitChainHooked = Limit{"ops of a chain in spaces with hooks", MaxHookedChainBytes, "write smaller chains, or bind the hook as a streamed one"}
	limitChainAdded  = Limit{"what hooks added to a chain", MaxBatchBytes, "write it as several chains"}
)

// Limits are the limits that all engines keep.
func Limits() []Limit {
	return []Limit{
		LimitKey, LimitValue, limitBlob, LimitBatch, limitHooked, limitMeta, limitToken, limitPath, limitPathDepth, limitTxReads, limitHookDepth, limitHookAdded, limitChainHooked,
		limitChainAdded,
	}
}

// Check returns a *[LimitError] if size is over the limit.
func (l Limit) Check(size int) error {
	if int64(size) <= l.Max {
		return nil
	}
	return l.over(int64(size))
}

func (l Limit) over(size int64) *LimitError {
	return &LimitError{What: l.What, Size: size, Limit: l.Max, Hint: l.Hint}
}

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
