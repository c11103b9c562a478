package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

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
	tagToken = 1
	tagLabel = 2
	tagLogs  = 3
	tagHook  = 4
	tagTask  = 5
	tagBlobs = 6
)

func appendMeta(dst []byte, tag byte, item []byte) []byte {
	dst = append(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(item)))
	return append(dst, item...)
}

// AppendToken appends the token of a commit, which comes first.
func AppendToken(dst []byte, token string) []byte { return appendMeta(dst, tagToken, []byte(token)) }

// AppendHook appends the closed path of a space whose hooks the commit passed. They are sorted.
func AppendHook(dst, path []byte) []byte { return appendMeta(dst, tagHook, path) }

// AppendLabel appends a label. They are sorted by name.
func AppendLabel(dst []byte, name, value string) []byte {
	item := binary.AppendUvarint(nil, uint64(len(name)))
	item = append(item, name...)
	item = append(item, value...)
	return appendMeta(dst, tagLabel, item)
}

// AppendLogs appends the item that names the logs which hold a part of a commit.
func AppendLogs(dst []byte, logs []uint64) []byte {
	var item []byte
	for _, n := range logs {
		item = binary.AppendUvarint(item, n)
	}
	return appendMeta(dst, tagLogs, item)
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

// ErrMeta says that what is beside the ops of a record is none of it.
var ErrMeta = errors.New("malformed meta")

// DecodeMeta decodes the meta of a record.
func DecodeMeta(b []byte) (Meta, error) {
	var m Meta
	last := byte(0)
	for len(b) > 0 {
		tag := b[0]
		item, rest, ok := cutString(b[1:])
		if !ok || tag < last || tag == last && tag != tagLabel && tag != tagHook {
			return Meta{}, ErrMeta
		}
		last, b = tag, rest
		switch tag {
		case tagToken:
			m.Token = string(item)
		case tagLabel:
			name, value, ok := cutString(item)
			if !ok {
				return Meta{}, ErrMeta
			}
			if m.Labels == nil {
				m.Labels = map[string]string{}
			}
			m.Labels[string(name)] = string(value)
		case tagLogs:
			for len(item) > 0 {
				log, n := binary.Uvarint(item)
				if n <= 0 {
					return Meta{}, ErrMeta
				}
				m.Logs = append(m.Logs, log)
				item = item[n:]
			}
		case tagHook:
			m.Hooks = append(m.Hooks, item)
		case tagTask:
			move, err := decodeTaskMove(item)
			if err != nil {
				return Meta{}, err
			}
			m.Task = move
		case tagBlobs:
			if len(item) > 0 {
				return Meta{}, ErrMeta
			}
			m.Blobs = true
		default:
			return Meta{}, fmt.Errorf("%w: unknown tag %d", ErrMeta, tag)
		}
	}
	return m, nil
}

// AppendBlobs appends the item that says that a commit puts references to blobs, which comes last.
func AppendBlobs(dst []byte) []byte { return appendMeta(dst, tagBlobs, nil) }

// A TaskMove is what the commit of a task's window carries: whose it is, and how far it takes the task. An engine makes the commit only if the worker
// with that fence is still one of the task's, and the task's cursor is at From; so a worker that was thought dead cannot commit, and no
// window is committed twice or out of order.
type TaskMove struct {
	Task     string
	Fence    uint64 // of the worker; numbers ascend and are never given twice
	From, To ID     // the cursor before and after; To is 0 for a commit that doesn't move it
	// Admin is of a commit that changes the task itself (who works on it, where it stands, what it derives). The engine then
	// looks at the task anew. It is not kept in the log.
	Admin bool
}

// AppendTaskMove appends whose window the commit is, and how far it takes the task.
func AppendTaskMove(dst []byte, m *TaskMove) []byte {
	item := binary.AppendUvarint(nil, uint64(len(m.Task)))
	item = append(item, m.Task...)
	for _, n := range []uint64{m.Fence, uint64(m.From), uint64(m.To)} {
		item = binary.AppendUvarint(item, n)
	}
	return appendMeta(dst, tagTask, item)
}

func decodeTaskMove(item []byte) (*TaskMove, error) {
	name, rest, ok := cutString(item)
	if !ok {
		return nil, ErrMeta
	}
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			return nil, ErrMeta
		}
		numbers[i], rest = n, rest[size:]
	}
	if len(rest) > 0 {
		return nil, ErrMeta
	}
	return &TaskMove{Task: string(name), Fence: numbers[0], From: ID(numbers[1]), To: ID(numbers[2])}, nil
}
