package opjson

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bytespace/batchlog"
)

// pieceBytes is how much of a commit WriteCommit writes at once, but for an op that is larger.
const pieceBytes = 32 << 10

// WriteCommit writes c, without a line end. It needs memory for its largest op and not for all, so c may be a chain of any size. If there is
// an error, a part may be written; errors of w are a *[WriteError].
func WriteCommit(w io.Writer, c *batchlog.Commit) error {
	write := func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return &WriteError{Err: err}
		}
		return nil
	}
	piece := pieces.Get().(*[]byte)
	buf, err := appendCommit((*piece)[:0], c, func(buf []byte) ([]byte, error) {
		if len(buf) < pieceBytes {
			return buf, nil
		}
		return buf[:0], write(buf)
	})
	if err == nil {
		err = write(buf)
	}
	if cap(buf) <= 4*pieceBytes { // a large op is rare: don't keep its memory
		*piece = buf
	}
	pieces.Put(piece)
	return err
}

// pieces is memory for WriteCommit.
var pieces = sync.Pool{New: func() any { return new([]byte) }}

// A WriteError is what the writer of [WriteCommit] returned.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap returns the writer's error.
func (e *WriteError) Unwrap() error { return e.Err }

// AppendCommit appends c, without a line end. [WriteCommit] is for commits that may be chains.
func AppendCommit(dst []byte, c *batchlog.Commit) ([]byte, error) {
	return appendCommit(dst, c, func(buf []byte) ([]byte, error) { return buf, nil })
}

// appendCommit appends c; after each op spill may take what is there and return what to append to.
func appendCommit(dst []byte, c *batchlog.Commit, spill func(buf []byte) ([]byte, error)) ([]byte, error) {
	dst = fmt.Appendf(dst, `{"id":%d,"time":"`, c.ID)
	dst = c.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","labels":{`...)
	for i, name := range slices.Sorted(maps.Keys(c.Labels)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, []byte(name))
		dst = append(dst, ':')
		dst = AppendString(dst, []byte(c.Labels[name]))
	}
	dst = append(dst, `},"ops":[`...)
	first := true
	for op, err := range c.Ops() {
		if err != nil {
			return dst, err
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = AppendOp(dst, op); err == nil {
			dst, err = spill(dst)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, "]}"...), nil
}

// AppendOp appends an op.
func AppendOp(dst []byte, op batchlog.Op) (_ []byte, err error) {
	dst = AppendSpace(fmt.Appendf(dst, `{"%s":{"space":`, op.Kind), op.Space)
	switch op.Kind {
	case batchlog.OpDeleteRange:
		if len(op.Key) > 0 {
			if dst, err = AppendKey(append(dst, `,"low":`...), op.Key); err != nil {
				return dst, err
			}
		}
		if op.High != nil {
			dst, err = AppendKey(append(dst, `,"high":`...), op.High)
		}
	default:
		dst, err = AppendKey(append(dst, `,"key":`...), op.Key)
		switch {
		case op.Kind == batchlog.OpPut && op.Blob != nil:
			dst = AppendBlob(append(dst, `,"blob":`...), *op.Blob)
		case op.Kind == batchlog.OpPut:
			dst = AppendValue(append(dst, `,"value":`...), op.Value)
		}
	}
	return append(dst, "}}"...), err
}

// AppendSpace appends a SPACE.
func AppendSpace(dst []byte, s *batchlog.Space) []byte {
	text := s.String()
	if text[0] == '[' { // the JSON array that it is
		return append(dst, text...)
	}
	return AppendString(dst, []byte(text))
}

// AppendEntry appends a key and its value as {"key":KEY,"value":VALUE}, or {"key":KEY,"blob":BLOB} where the value is a blob that was not loaded.
func AppendEntry(dst []byte, e batchlog.Entry) (_ []byte, err error) {
	if dst, err = AppendKey(append(dst, `{"key":`...), e.Key); err != nil {
		return dst, err
	}
	if e.Blob != nil && e.Value == nil {
		return append(AppendBlob(append(dst, `,"blob":`...), *e.Blob), '}'), nil
	}
	return append(AppendValue(append(dst, `,"value":`...), e.Value), '}'), nil
}

// AppendKey appends a KEY.
func AppendKey(dst []byte, k batchlog.Key) ([]byte, error) {
	text, err := k.MarshalJSON()
	return append(dst, text...), err
}

// AppendValue appends a VALUE: a string where its bytes are UTF-8.
func AppendValue(dst, value []byte) []byte {
	if utf8.Valid(value) {
		return AppendString(dst, value)
	}
	dst = append(dst, `{"$base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, value)
	return append(dst, `"}`...)
}

// AppendBlob appends a BLOB.
func AppendBlob(dst []byte, ref batchlog.BlobRef) []byte {
	dst = hex.AppendEncode(append(dst, `{"sha256":"`...), ref.Hash[:])
	return fmt.Appendf(dst, `","size":%d}`, ref.Size)
}

// AppendString appends s, UTF-8, as a JSON string.
func AppendString(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
