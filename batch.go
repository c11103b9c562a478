package batchlog

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/internal/wire"
)

// A Batch collects ops, over any spaces of one database, to be written as one commit. Later ops win over
// earlier ones. The zero Batch is ready; it is not safe for concurrent use. Keys and values are copied.
//
// A mistake (a key too large, a space of another database) is remembered and returned by [DB.Write],
// which then writes nothing.
type Batch struct {
	// Token names this batch for safe retries: writing a batch whose token the log already holds
	// returns the id of the first and writes nothing, for as long as the log keeps
	// that commit. "" is none. At most MaxTokenBytes, UTF-8.
	Token string
	// Labels are kept with the commit: an actor, a reason, … UTF-8, together with the token at most MaxMetaBytes.
	Labels map[string]string

	db       *DB
	err      error // the first mistake
	proposal waist.Proposal
}

// Put adds: set the value of k in s. The last op on a key wins.
func (b *Batch) Put(s *Space, k Key, value []byte) {
	if err := LimitValue.Check(len(value)); err != nil {
		b.fail(err)
		return
	}
	b.add(OpPut, s, k, wire.StoredValue(value))
}

// Delete adds: remove k from s.
func (b *Batch) Delete(s *Space, k Key) { b.add(OpDelete, s, k, nil) }

// DeleteRange adds: remove the keys of s that are in r then; spaces within s keep theirs. Keys that are put
// later in the same batch stay.
func (b *Batch) DeleteRange(s *Space, r Range) {
	if !b.accepts(s) {
		return
	}
	if err := LimitKey.Check(len(s.prefix) + len(r.High)); err != nil {
		b.fail(err)
		return
	}
	if _, high, empty := s.storedRange(r); !empty {
		b.add(OpDeleteRange, s, r.Low, high)
	}
}

// Len is the number of ops in b.
func (b *Batch) Len() int { return b.proposal.Count }

// Size is the number of bytes that the ops of b take, encoded. [MaxBatchBytes] bounds it.
func (b *Batch) Size() int { return len(b.proposal.Ops) }

// Reset empties b, its token and labels too, and keeps its memory. A batch may be reset when Write has returned.
func (b *Batch) Reset() {
	*b = Batch{proposal: waist.Proposal{Ops: b.proposal.Ops[:0], Meta: b.proposal.Meta[:0]}}
}

func (b *Batch) add(kind OpKind, s *Space, k Key, value []byte) {
	if !b.accepts(s) {
		return
	}
	if err := LimitKey.Check(len(s.prefix) + len(k)); err != nil {
		b.fail(err)
		return
	}
	p := &b.proposal
	p.Ops = wire.AppendOpIn(p.Ops, kind, s.prefix, k, value)
	p.Count++
	if err := LimitBatch.Check(len(p.Ops)); err != nil {
		b.fail(err)
		p.Ops, p.Count = nil, 0 // what follows is dropped too: a batch that fails must not eat the memory
	}
}

// accepts reports whether ops on s may go into b, and remembers why not.
func (b *Batch) accepts(s *Space) bool {
	switch {
	case b.err != nil:
	case s == nil:
		b.fail(errors.New("op on a nil space"))
	case s.err != nil:
		b.fail(s.err)
	case b.db == nil:
		b.db = s.db
	case b.db != s.db:
		b.fail(fmt.Errorf("op on space %s of another database: %w", s, ErrPermission))
	}
	return b.err == nil
}

func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// seal is b as a proposal to db's engine. It stays valid until b changes.
func (b *Batch) seal(db *DB) (*waist.Proposal, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.db != nil && b.db != db {
		return nil, fmt.Errorf("batch with ops on spaces of another database: %w", ErrPermission)
	}
	p := &b.proposal
	p.Token = b.Token
	p.Meta = p.Meta[:0]
	if b.Token == "" && len(b.Labels) == 0 && p.Task == nil {
		return p, nil
	}
	if b.Token != "" && p.Task != nil {
		return nil, fmt.Errorf("token on the commit of a task, which its cursor makes unique already: %w", ErrUnsupported)
	}
	if err := limitToken.Check(len(b.Token)); err != nil {
		return nil, err
	}
	if !utf8.ValidString(b.Token) {
		return nil, fmt.Errorf("token %q is not UTF-8", b.Token)
	}
	if b.Token != "" {
		p.Meta = wire.AppendToken(p.Meta, b.Token)
	}
	names := make([]string, 0, len(b.Labels))
	for name, value := range b.Labels {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("label %q: %q is not UTF-8", name, value)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.Meta = wire.AppendLabel(p.Meta, name, b.Labels[name])
	}
	if p.Task != nil && !p.Task.Admin {
		p.Meta = wire.AppendTaskMove(p.Meta, p.Task)
	}
	if err := limitMeta.Check(len(p.Meta)); err != nil {
		return nil, err
	}
	return p, LimitBatch.Check(len(p.Meta) + len(p.Ops))
}
