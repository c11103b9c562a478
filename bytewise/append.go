package bytewise

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// A value is encoded as a tag and a body. Tags ascend as the types sort:
//
//	tag  value        body
//	00   (end)        closes an array, and strings and binary in one; begins no value
//	10   null
//	20   false
//	21   true
//	40   -Infinity
//	41   number < 0   8 bytes: IEEE 754 binary64 of its magnitude, big-endian, every bit inverted
//	42   number >= 0  8 bytes: IEEE 754 binary64, big-endian; -0 as +0
//	43   +Infinity
//	51   date < 0     as 41, of the milliseconds since 1970-01-01 UTC, a whole number
//	52   date >= 0    as 42, likewise; dates are within ±8.64e15 ms
//	60   binary       the bytes; in an array: escaped, then 00
//	70   string       the UTF-8 bytes; in an array: escaped, then 00
//	a0   array        the elements, then 00
//	f0   undefined
//	ff   (high)       begins no value: above all of them
//
// The escape keeps 00 free to close a string or binary, and stays in order. It does not grow with depth:
//
//	byte     00     01     fe     ff
//	escaped  01 01  01 02  fe fd  fe fe
//
// UTF-8 has no fe and ff, so strings use half of it.
const (
	TagEnd        byte = 0x00
	TagNull       byte = 0x10
	TagFalse      byte = 0x20
	TagTrue       byte = 0x21
	TagNegInf     byte = 0x40
	TagNegative   byte = 0x41
	TagPositive   byte = 0x42
	TagPosInf     byte = 0x43
	TagDateBefore byte = 0x51
	TagDateAfter  byte = 0x52
	TagBinary     byte = 0x60
	TagString     byte = 0x70
	TagArray      byte = 0xa0
	TagUndefined  byte = 0xf0
	TagHigh       byte = 0xff
)

const (
	numberSize = 1 + 8 // of a finite number or a date, with its tag

	escLow  byte = 0x01 // stands before 01 (for 00) and 02 (for 01)
	escHigh byte = 0xfe // stands before fd (for fe) and fe (for ff)

	maxDateMillis = 8_640_000_000_000_000 // either side of the epoch; JavaScript's limit, and exact as a float64
)

// Append appends the encoding of v to dst and returns the extended slice.
//
// Go's types stand for the encoding's types so; what [Decode] returns is named first:
//
//	null       nil
//	boolean    bool
//	number     float64, float32, every int and uint, that is exact as a float64 (all to ±2^53 are)
//	date       time.Time, of whole milliseconds within ±8.64e15 ms of the epoch; zone and monotonic clock are dropped
//	binary     []byte (nil, too), [N]byte
//	string     string, of valid UTF-8
//	array      []any (nil, too), and slices and arrays of all these types
//	undefined  Undefined
//
// A named type is what its underlying type is (a time.Duration is a number of nanoseconds), but for structs: only time.Time
// and [UndefinedType] themselves. Pointers, maps, and all else have no encoding.
//
// A part of a millisecond is an error because it would not come back, and two times would share a key: say
// t.Truncate(time.Millisecond). The same holds for integers that a float64 rounds.
//
// If the error is not nil, it is a [*ValueError] and dst is returned as it was. Bytes between its length and capacity may be overwritten.
// Append does not allocate if the encoding fits there.
func Append(dst []byte, v any) ([]byte, error) {
	out, err := appendValue(dst, v, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// AppendElement is [Append] for an element of an array: strings and binary are escaped and closed. [TagArray],
// elements, and [TagEnd] make an array. v counts as within one array towards [MaxDepth].
func AppendElement(dst []byte, v any) ([]byte, error) {
	out, err := appendValue(dst, v, 1)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Encode returns the encoding of v. It is [Append] to nothing.
func Encode(v any) ([]byte, error) {
	return Append(nil, v)
}

// appendValue appends v, which stands within depth arrays. What it returns with an error is of no use.
//
// It and all it calls keep v from escaping, so that a caller's conversion to any costs no allocation: hence
// appendReflect, which walks other types without turning their elements back into interfaces.
func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, TagNull), nil
	case bool:
		return appendBool(dst, v), nil
	case string:
		return appendString(dst, v, depth, "string")
	case int:
		return appendInt(dst, int64(v), "int")
	case int64:
		return appendInt(dst, v, "int64")
	case uint64:
		return appendUint(dst, v, "uint64")
	case float64:
		return appendFloat(dst, v, "float64")
	case []byte:
		return appendBinary(dst, v, depth), nil
	case time.Time:
		return appendTime(dst, v)
	case []any:
		if depth == MaxDepth {
			return dst, &ValueError{"[]interface {}", tooDeep}
		}
		dst = append(dst, TagArray)
		for _, e := range v {
			var err error
			if dst, err = appendValue(dst, e, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, TagEnd), nil
	case UndefinedType:
		return append(dst, TagUndefined), nil
	}
	return appendReflect(dst, v, depth)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, TagTrue)
	}
	return append(dst, TagFalse)
}

// appendInt refuses v unless it is exact as a float64. The bound is checked before converting back, as Go leaves open what
// a float64 out of range becomes; goType is for the error.
func appendInt(dst []byte, v int64, goType string) ([]byte, error) {
	f := float64(v)
	if f >= 1<<63 || int64(f) != v {
		return dst, &ValueError{goType, strconv.FormatInt(v, 10) + " is not exact as a float64"}
	}
	return appendFinite(dst, f, TagNegative, TagPositive), nil
}

// appendUint is [appendInt] for unsigned integers.
func appendUint(dst []byte, v uint64, goType string) ([]byte, error) {
	f := float64(v)
	if f >= 1<<64 || uint64(f) != v {
		return dst, &ValueError{goType, strconv.FormatUint(v, 10) + " is not exact as a float64"}
	}
	return appendFinite(dst, f, TagNegative, TagPositive), nil
}

func appendFloat(dst []byte, f float64, goType string) ([]byte, error) {
	switch {
	case f != f:
		return dst, &ValueError{goType, "NaN has no place in the order"}
	case f > math.MaxFloat64:
		return append(dst, TagPosInf), nil
	case f < -math.MaxFloat64:
		return append(dst, TagNegInf), nil
	}
	return appendFinite(dst, f, TagNegative, TagPositive), nil
}

func appendTime(dst []byte, t time.Time) ([]byte, error) {
	const maxDateSeconds = maxDateMillis / 1000
	// UnixMilli wraps for times far out, so the seconds are checked first.
	if s := t.Unix(); s < -maxDateSeconds || s > maxDateSeconds || t.UnixMilli() > maxDateMillis {
		return dst, &ValueError{"time.Time", "more than 8.64e15 ms from the epoch"}
	}
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		return dst, &ValueError{"time.Time", "not a whole number of milliseconds"}
	}
	return appendFinite(dst, float64(t.UnixMilli()), TagDateBefore, TagDateAfter), nil
}

// appendFinite appends f, which is finite. The bits of floats of one sign ascend with their magnitude; inverting
// them turns that round for negative ones, whose sign is in the tag.
func appendFinite(dst []byte, f float64, negative, positive byte) []byte {
	if f < 0 {
		return binary.BigEndian.AppendUint64(append(dst, negative), ^math.Float64bits(-f))
	}
	if f == 0 {
		f = 0 // -0, which sorts as +0, becomes it
	}
	return binary.BigEndian.AppendUint64(append(dst, positive), math.Float64bits(f))
}

func appendString(dst []byte, s string, depth int, goType string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return dst, &ValueError{goType, "not valid UTF-8"}
	}
	dst = append(dst, TagString)
	if depth == 0 {
		return append(dst, s...), nil
	}
	return append(appendEscaped(dst, s), TagEnd), nil
}

func appendBinary(dst, b []byte, depth int) []byte {
	dst = append(dst, TagBinary)
	if depth == 0 {
		return append(dst, b...)
	}
	return append(appendEscaped(dst, b), TagEnd)
}

// appendEscaped appends s with the escape of the table above; [unescape] is its mirror image.
func appendEscaped[S string | []byte](dst []byte, s S) []byte {
	done := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c <= escLow:
			dst = append(dst, s[done:i]...)
			dst = append(dst, escLow, c+1)
			done = i + 1
		case c >= escHigh:
			dst = append(dst, s[done:i]...)
			dst = append(dst, escHigh, c-1)
			done = i + 1
		}
	}
	return append(dst, s[done:]...)
}
