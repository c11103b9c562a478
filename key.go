package batchlog

import (
	"encoding/hex"

	"github.com/bytespace/batchlog/bytewise"
)

// A Key names a value within a space. It is any bytes, the empty key included; keys sort as their
// bytes do. [K] makes keys from values, in an order that is the order of the values.
type Key []byte

// K is the key for parts: K("a") is the value "a", K("a", 1) is the array ["a", 1], K() is the empty
// array. Parts are what package bytewise holds: nil, bool, numbers, time.Time, []byte, string, []any.
// It panics on anything else; [KeyOf] returns an error instead.
func K(parts ...any) Key {
	k, err := KeyOf(parts...)
	if err != nil {
		panic("batchlog.K: " + err.Error())
	}
	return k
}

// KeyOf is [K] for parts that are not known to fit: it returns an error where K panics.
func KeyOf(parts ...any) (Key, error) {
	if len(parts) == 1 {
		return bytewise.Append(nil, parts[0])
	}
	return bytewise.Append(nil, parts)
}

// Decode is the value that k stands for: nil, bool, float64, time.Time, []byte, string, []any or
// bytewise.Undefined. A key that [K] did not make is an error.
func (k Key) Decode() (any, error) { return bytewise.Decode(k) }

// String is k as JSON where it has a form in it ("alice", ["alice",42]), else 0x and its bytes in hex.
func (k Key) String() string {
	v, err := k.Decode()
	if err == nil {
		if text, ok := appendJSON(nil, v); ok {
			return string(text)
		}
	}
	return "0x" + hex.EncodeToString(k)
}

// A Range is the keys k with Low <= k < High. The zero Range is every key. A nil Low is the first key;
// a nil High is unbounded, a High that is empty but not nil makes a range without keys.
type Range struct{ Low, High Key }

// Prefix is the range of the array keys that begin with parts. Like [K] it panics on parts that
// no key can have.
func Prefix(parts ...any) Range {
	low, high, err := bytewise.PrefixRange(parts...)
	if err != nil {
		panic("batchlog.Prefix: " + err.Error())
	}
	return Range{Low: low, High: high}
}

// StringPrefix is the range of the string keys that begin with s.
func StringPrefix(s string) Range {
	low, high := bytewise.StringPrefixRange(s)
	return Range{Low: low, High: high}
}

// Between is the range of the keys from low on and below high.
func Between(low, high Key) Range { return Range{Low: low, High: high} }

// Contains reports whether k is in r.
func (r Range) Contains(k Key) bool {
	return string(k) >= string(r.Low) && (r.High == nil || string(k) < string(r.High))
}
