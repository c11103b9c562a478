package bytewise

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// Decode returns the value that b encodes, of the Go type that [Append] names first: nil, bool, float64, time.Time in UTC,
// []byte, string, []any of these, or [Undefined]. An empty binary or array is empty, not nil.
//
// b must be all of one encoding, as Append writes it: if Decode accepts b, Append(nil, v) is b again. If not, the error is a [*SyntaxError].
func Decode(b []byte) (any, error) {
	d := decoder{b: b}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.offset < len(b) {
		return nil, &SyntaxError{d.offset, "bytes after the value"}
	}
	return v, nil
}

// DecodeArrayPrefix returns the array that b begins with and the size of its encoding in bytes; what follows is not looked at.
// It accepts what [Decode] accepts. If the error is not nil, it is a [*SyntaxError], and v and size are zero.
func DecodeArrayPrefix(b []byte) (v []any, size int, err error) {
	if len(b) == 0 || b[0] != TagArray {
		return nil, 0, notArray(b)
	}
	d := decoder{b: b}
	v, err = d.array(0)
	if err != nil {
		return nil, 0, err
	}
	return v, d.offset, nil
}

// A decoder reads values from b, one after the other, and accepts only what the encoder writes.
type decoder struct {
	b      []byte
	offset int // of the byte to read next
}

// value reads a value that stands within depth arrays. It and [decoder.array] call each other at most [MaxDepth] deep.
func (d *decoder) value(depth int) (any, error) {
	if d.offset == len(d.b) {
		return nil, truncated(len(d.b))
	}
	switch tag := d.b[d.offset]; tag {
	case TagNull:
		d.offset++
		return nil, nil
	case TagFalse, TagTrue:
		d.offset++
		return tag == TagTrue, nil
	case TagNegInf:
		d.offset++
		return math.Inf(-1), nil
	case TagPosInf:
		d.offset++
		return math.Inf(1), nil
	case TagNegative, TagPositive:
		f, err := d.finite(tag == TagNegative)
		if err != nil {
			return nil, err // not f, which would be a value
		}
		return f, nil
	case TagDateBefore, TagDateAfter:
		return d.date(tag == TagDateBefore)
	case TagBinary:
		return d.binary(depth)
	case TagString:
		return d.string(depth)
	case TagArray:
		return d.array(depth)
	case TagUndefined:
		d.offset++
		return Undefined, nil
	default:
		return nil, badTag(d.offset, tag)
	}
}

// array reads an array, whose tag its caller has seen.
func (d *decoder) array(depth int) ([]any, error) {
	if depth == MaxDepth {
		return nil, &SyntaxError{d.offset, tooDeep}
	}
	d.offset++
	v := []any{}
	for d.offset == len(d.b) || d.b[d.offset] != TagEnd {
		e, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		v = append(v, e)
	}
	d.offset++
	return v, nil
}

// finite reads a tag and the 8 bytes of a finite number. It refuses bits that [appendFinite] doesn't write:
// a sign, infinities and NaN (all at or above the bits of +Infinity), and a zero with the negative tag.
func (d *decoder) finite(negative bool) (float64, error) {
	if len(d.b)-d.offset < numberSize {
		return 0, truncated(len(d.b))
	}
	const infinity = 0x7ff0_0000_0000_0000
	bits := binary.BigEndian.Uint64(d.b[d.offset+1:])
	if negative {
		bits = ^bits
	}
	if bits >= infinity || negative && bits == 0 {
		return 0, &SyntaxError{d.offset, "number not in canonical form"}
	}
	d.offset += numberSize
	f := math.Float64frombits(bits)
	if negative {
		f = -f
	}
	return f, nil
}

func (d *decoder) date(before bool) (any, error) {
	start := d.offset
	f, err := d.finite(before)
	if err != nil {
		return nil, err
	}
	if math.Abs(f) > maxDateMillis {
		return nil, &SyntaxError{start, "date more than 8.64e15 ms from the epoch"}
	}
	if f != math.Trunc(f) {
		return nil, &SyntaxError{start, "date not a whole number of milliseconds"}
	}
	return time.UnixMilli(int64(f)).UTC(), nil
}

func (d *decoder) binary(depth int) (any, error) {
	body, offset, err := d.body(depth)
	if err != nil {
		return nil, err
	}
	if depth == 0 {
		return append([]byte{}, body...), nil
	}
	return unescape(body, offset)
}

func (d *decoder) string(depth int) (any, error) {
	body, offset, err := d.body(depth)
	if err != nil {
		return nil, err
	}
	// Escaped or not is all one to this check: the escape turns ASCII into ASCII, and what it doesn't write unescape refuses.
	if !utf8.Valid(body) {
		return nil, &SyntaxError{offset + validLen(body), "string not valid UTF-8"}
	}
	if depth == 0 || bytes.IndexByte(body, escLow) < 0 {
		return string(body), nil
	}
	s, err := unescape(body, offset)
	if err != nil {
		return nil, err
	}
	return string(s), nil
}

// body reads a tag and a body, which ends at [TagEnd] in an array and with the input elsewhere. It returns
// the body as it stands, and its offset.
func (d *decoder) body(depth int) (body []byte, offset int, err error) {
	offset = d.offset + 1
	body = d.b[offset:]
	if depth == 0 {
		d.offset = len(d.b)
		return body, offset, nil
	}
	end := bytes.IndexByte(body, TagEnd)
	if end < 0 {
		return nil, 0, truncated(len(d.b))
	}
	d.offset = offset + end + 1
	return body[:end], offset, nil
}

// unescape returns body, which stands at offset, without the escape; [appendEscaped] is its mirror image.
func unescape(body []byte, offset int) ([]byte, error) {
	b := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		c := body[i]
		if c != escLow && c < escHigh {
			b = append(b, c)
			continue
		}
		var second byte // none is 00: that would have closed the body
		if i+1 < len(body) {
			second = body[i+1]
		}
		switch {
		case c == escLow && (second == 0x01 || second == 0x02):
			b = append(b, second-1)
		case c == escHigh && (second == 0xfd || second == 0xfe):
			b = append(b, second+1)
		default:
			return nil, &SyntaxError{offset + i, fmt.Sprintf("bad escape %02x %02x", c, second)}
		}
		i++
	}
	return b, nil
}

// validLen returns how many bytes of b come before the first that is not UTF-8.
func validLen(b []byte) int {
	n := 0
	for n < len(b) {
		r, size := utf8.DecodeRune(b[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}
