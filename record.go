package batchlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Record is a commit as log and engine hold it. Its bytes are never changed; whoever is handed a record may keep it.
type Record struct {
	ID    ID
	Time  int64  // microseconds since 1970-01-01 UTC; never less than in the record before
	Count int    // number of ops, those of the chain included
	Meta  []byte // token, labels, …
	Ops   []byte // ops, one behind the other
	// Chain is where more ops are, which need not fit into memory and come before those in Ops; nil: there are none.
	Chain *ChainRef
}

// Size is the encoded bytes that the record holds.
func (r *Record) Size() int { return len(r.Meta) + len(r.Ops) }

// Meta is what a commit carries beside its ops: items one behind the other, each a tag, a length (both uvarint) and that
// many bytes. Tags come in ascending order; a tag may repeat. An unknown tag is an error, as
// it would not be there in this version of the format.
//
//	tag  item
//	1    token: UTF-8
//	2    label: length of the name (uvarint), name, value; sorted by name
//	3    logs: the numbers (uvarint) of all logs that hold a part of the commit, ascending. A commit
//	     without it is whole in the log where it stands
//	4    hook: the closed path of a space whose pre-commit hooks the commit passed; sorted
//	5    task: length of the name (uvarint), name, fence, cursor before, cursor after (uvarint each); of the commit of a
//	     task's window. A cursor after of 0: it doesn't move
//	6    blobs: nothing; there if an op puts a reference to a blob
const (
	metaToken = 1
	metaLabel = 2
	metaLogs  = 3
	metaHook  = 4
	metaTask  = 5
	metaBlobs = 6
)

func appendMeta(dst []byte, tag byte, item []byte) []byte {
	dst = append(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(item)))
	return append(dst, item...)
}

func appendLabel(dst []byte, name, value string) []byte {
	item := binary.AppendUvarint(nil, uint64(len(name)))
	item = append(item, name...)
	item = append(item, value...)
	return appendMeta(dst, metaLabel, item)
}

// AppendLogs appends the item that names the logs which hold a part of a commit. It is for engines.
func AppendLogs(dst []byte, logs []uint64) []byte {
	var item []byte
	for _, n := range logs {
		item = binary.AppendUvarint(item, n)
	}
	return appendMeta(dst, metaLogs, item)
}

// Meta is a record's meta, decoded.
type Meta struct {
	Token  string
	Labels map[string]string // nil when there are none
	Logs   []uint64          // nil: the log where the record stands, alone
	Hooks  [][]byte          // closed paths of spaces whose pre-commit hooks the commit passed
	Task   *TaskMove         // nil: not of a task
	Blobs  bool              // an op puts a reference to a blob
}

var errMeta = errors.New("malformed meta")

// DecodeMeta decodes the meta of a record.
func DecodeMeta(b []byte) (Meta, error) {
	var m Meta
	last := byte(0)
	for len(b) > 0 {
		tag := b[0]
		item, rest, ok := cutString(b[1:])
		if !ok || tag < last || tag == last && tag != metaLabel && tag != metaHook {
			return Meta{}, errMeta
		}
		last, b = tag, rest
		switch tag {
		case metaToken:
			m.Token = string(item)
		case metaLabel:
			name, value, ok := cutString(item)
			if !ok {
				return Meta{}, errMeta
			}
			if m.Labels == nil {
				m.Labels = map[string]string{}
			}
			m.Labels[string(name)] = string(value)
		case metaLogs:
			for len(item) > 0 {
				log, n := binary.Uvarint(item)
				if n <= 0 {
					return Meta{}, errMeta
				}
				m.Logs = append(m.Logs, log)
				item = item[n:]
			}
		case metaHook:
			m.Hooks = append(m.Hooks, item)
		case metaTask:
			move, err := decodeTaskMove(item)
			if err != nil {
				return Meta{}, err
			}
			m.Task = move
		case metaBlobs:
			if len(item) > 0 {
				return Meta{}, errMeta
			}
			m.Blobs = true
		default:
			return Meta{}, fmt.Errorf("%w: unknown tag %d", errMeta, tag)
		}
	}
	return m, nil
}

// Token is the token in the meta of r, or "".
func (r *Record) Token() string {
	if len(r.Meta) == 0 || r.Meta[0] != metaToken {
		return ""
	}
	item, _, ok := cutString(r.Meta[1:])
	if !ok {
		return ""
	}
	return string(item)
}

// HasBlobs reports whether r has ops that put references to blobs.
func (r *Record) HasBlobs() bool {
	// Its item is the last one.
	b := r.Meta
	for len(b) > 0 {
		if b[0] == metaBlobs {
			return true
		}
		_, rest, ok := cutString(b[1:])
		if !ok {
			return false
		}
		b = rest
	}
	return false
}

// AppendBlobs appends the item that says that a commit puts references to blobs, which comes last. It is for engines.
func AppendBlobs(dst []byte) []byte { return appendMeta(dst, metaBlobs, nil) }
