package batchlog

import (
	"fmt"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// An OpKind says what an op does: [OpPut], [OpDelete] or [OpDeleteRange]. Its String is the word of the command line.
type OpKind = wire.Kind

// The kinds of ops.
const (
	OpDelete      OpKind = wire.Delete      // removes a key
	OpPut         OpKind = wire.Put         // sets a key's value
	OpDeleteRange OpKind = wire.DeleteRange // removes the keys from Key on and below High
)

// An Op is one change. Key and High are relative to Space.
type Op struct {
	Kind  OpKind
	Space *Space
	Key   Key    // of a range delete: the lowest key
	High  Key    // of a range delete: above the highest key; nil: no bound
	Value []byte // of a put; nil if it is a blob

	Blob *BlobRef // of a put whose value is a blob; see Op.Load and Op.Open
	run  *hookRun // of an op that a pre-commit hook is given: where it may be dropped or changed
	at   int
}

// In reports whether o is within s: in its own keys or in those of a space within it.
func (o Op) In(s *Space) bool { return s.Contains(o.Space) }

// CheckOps reports whether ops is count well-formed ops on keys of spaces, as a [Batch] makes
// them. Engines call it on ops that come from elsewhere.
func CheckOps(ops []byte, count int) error {
	for i := range count {
		kind, key, value, rest, err := wire.NextOp(ops)
		if err == nil {
			err = checkOp(kind, key, value)
		}
		if err != nil {
			return fmt.Errorf("op %d of %d: %w", i+1, count, err)
		}
		ops = rest
	}
	if len(ops) != 0 || count < 0 {
		return fmt.Errorf("%d bytes behind the last of %d ops", len(ops), count)
	}
	return nil
}

// checkOp reports why an op is none that a batch makes.
func checkOp(kind OpKind, key, value []byte) error {
	if err := LimitKey.Check(len(key)); err != nil {
		return err
	}
	_, n, err := bytewise.DecodeArrayPrefix(key) // ArrayLen would take what no path is encoded as
	if err != nil {
		return wire.ErrOpKey
	}
	path := key[:n]
	if err := checkPath(path); err != nil {
		return err
	}
	switch kind {
	case OpPut:
		plain, _, err := parseValue(value)
		if err != nil {
			return wire.ErrOpValue
		}
		if err := LimitValue.Check(len(plain)); err != nil {
			return err
		}
	case OpDeleteRange:
		if err := LimitKey.Check(len(value)); err != nil {
			return err
		}
		if !wire.InOwnKeys(path, value) || string(key) >= string(value) {
			return wire.ErrOpKey
		}
	}
	return nil
}
