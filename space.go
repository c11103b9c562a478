package batchlog

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/bytespace/batchlog/bytewise"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Space is a namespace of keys and a capability: with a space one reaches its own keys and the spaces within
// it, and nothing else. Two ranges belong to it. Its own keys are what Get, Scan, Put and Delete mean. Its
// subtree, the own keys and those of all spaces within, is what Tail and everything else that follows or governs means.
//
// A Space is immutable, cheap to make, and safe for concurrent use. Spaces of one database with
// equal paths are the same space.
type Space struct {
	db *DB
	// prefix is the path as bytewise encodes it, closed. Every own key is stored as prefix + key. Without its
	// last byte it is open: the prefix of every key in the subtree.
	prefix []byte
	err    error // why the path is none; every use of the space returns it
}

func newSpace(db *DB, parent []byte, path []any) *Space {
	s := &Space{db: db}
	s.prefix = append(make([]byte, 0, len(parent)+16*len(path)+1), wire.Open(parent)...)
	for _, part := range path {
		var err error
		if s.prefix, err = bytewise.AppendElement(s.prefix, part); err != nil {
			s.err = fmt.Errorf("space %v: %w", path, err)
			break
		}
	}
	s.prefix = append(s.prefix, 0)
	if s.err == nil {
		s.err = checkPath(s.prefix)
	}
	return s
}

// checkPath refuses a path that is too deep or leaves no room for keys.
func checkPath(prefix []byte) error {
	if err := limitPathDepth.Check(pathDepth(prefix)); err != nil {
		return err
	}
	return limitPath.Check(len(prefix))
}

func pathDepth(prefix []byte) int {
	depth := 0
	for rest := wire.Typed(wire.Open(prefix))[1:]; len(rest) > 0; depth++ {
		n, err := bytewise.ElementLen(rest)
		if err != nil {
			panic("batchlog: bug: space with a malformed path: " + err.Error())
		}
		rest = rest[n:]
	}
	return depth
}

// Space is the space within s at path; each part is a value as in [K]. With no parts it is s. A part that no key
// can hold, or a path deeper than [MaxPathDepth], makes a space whose every use returns an error.
func (s *Space) Space(path ...any) *Space {
	if len(path) == 0 || s.err != nil {
		return s
	}
	return newSpace(s.db, s.prefix, path)
}

// Path is the path of s from the root, as decoded values.
func (s *Space) Path() []any {
	if s.err != nil {
		return nil
	}
	v, err := bytewise.Decode(wire.Typed(s.prefix))
	if err != nil {
		panic("batchlog: bug: space with a malformed path: " + err.Error())
	}
	return v.([]any)
}

// Stored is the path of s as log and store hold it, closed: what every stored key of s begins with. Without its last byte, 00, it is open:
// what every stored key in the subtree begins with. It is for engines and for packages that extend the database; SpaceAt of [DB.Inside] is its inverse.
func (s *Space) Stored() []byte { return s.prefix }

// String is the path of s for people: a/b where all parts are plain strings, else a JSON array; the root is "/".
func (s *Space) String() string {
	if s.err != nil {
		return s.err.Error()
	}
	path := s.Path()
	if len(path) == 0 {
		return "/"
	}
	text := ""
	for i, part := range path {
		word, ok := part.(string)
		if !ok || !plainWord(word) {
			return Key(wire.Typed(s.prefix)).String()
		}
		if i > 0 {
			text += "/"
		}
		text += word
	}
	return text
}

// plainWord reports whether a part of a path stands for itself between slashes.
func plainWord(s string) bool {
	if s == "" || s[0] == '[' {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r == '/' || r == 0x7f {
			return false
		}
	}
	return true
}

// Equal reports whether s and t are the same space of the same database.
func (s *Space) Equal(t *Space) bool {
	return s.db == t.db && s.err == nil && t.err == nil && bytes.Equal(s.prefix, t.prefix)
}

// Contains reports whether t is s or a space within it.
func (s *Space) Contains(t *Space) bool {
	return s.db == t.db && s.err == nil && t.err == nil && bytes.HasPrefix(t.prefix, wire.Open(s.prefix))
}

// Get returns the value of k in s, or [ErrNotFound]. Unless told otherwise it shows every commit that was
// acknowledged before the call, and waits for the store to get there. The value is the caller's.
func (s *Space) Get(ctx context.Context, k Key, opts ...ReadOption) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.db.get(ctx, s, k, readOptions(opts))
}

// Scan yields the keys of s in r with their values, in ascending order or with [ScanReverse] in descending, as they
// were at one moment; commits meanwhile do not show. Memory is bounded whatever the range. An
// error ends it, also that of ctx.
func (s *Space) Scan(ctx context.Context, r Range, opts ...ReadOption) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if s.err != nil {
			yield(Entry{}, s.err)
			return
		}
		o := readOptions(opts)
		o.Only = string(s.prefix)
		v, err := s.db.view(ctx, o)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer v.Close()
		v.scan(ctx, s, r, o, yield)
	}
}

// Put sets the value of k in s, as one commit. See [DB.Write].
func (s *Space) Put(ctx context.Context, k Key, value []byte) (ID, error) {
	var b Batch
	b.Put(s, k, value)
	return s.db.Write(ctx, &b)
}

// Delete removes k from s, as one commit. To delete a key that is not there is no error. See [DB.Write].
func (s *Space) Delete(ctx context.Context, k Key) (ID, error) {
	var b Batch
	b.Delete(s, k)
	return s.db.Write(ctx, &b)
}

// Tail yields the commits that touch the subtree of s, each with its ops there. See [DB.Tail];
// o.Spaces, if any, must be spaces within s.
func (s *Space) Tail(ctx context.Context, o TailOptions) iter.Seq2[*Commit, error] {
	if s.err != nil {
		return fail[*Commit](s.err)
	}
	for _, within := range o.Spaces {
		if !s.Contains(within) {
			return fail[*Commit](fmt.Errorf("tail of space %s: %s is not within it: %w", s, within, ErrPermission))
		}
	}
	if len(o.Spaces) == 0 {
		o.Spaces = []*Space{s}
	}
	return s.db.Tail(ctx, o)
}

// storedKey is k of s as log and store hold it.
func (s *Space) storedKey(k Key) []byte {
	return append(append(make([]byte, 0, len(s.prefix)+len(k)), s.prefix...), k...)
}

// storedRange is r of s as log and store hold it. empty says that it has no keys.
func (s *Space) storedRange(r Range) (low, high []byte, empty bool) {
	low = s.storedKey(r.Low)
	if r.High == nil {
		high = wire.AfterOwn(s.prefix)
	} else {
		high = s.storedKey(r.High)
	}
	return low, high, bytes.Compare(low, high) >= 0
}

// fail is an iteration that is over before it began.
func fail[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}
