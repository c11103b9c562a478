// Package bytewise encodes values as bytes that sort as the values do.
//
// Comparing two encodings with [bytes.Compare] orders them so, whatever their types:
//
//	null < false < true < numbers < dates < binary < strings < arrays < undefined
//
// Numbers go from -Infinity to +Infinity, dates from past to future, binary by its bytes and strings by
// their UTF-8 bytes (which is by code point). Arrays go element by element, and an array before the longer ones
// that begin with it. The encoding is that of the npm package bytewise 1.1.0, byte for byte;
// the table of it stands over [Append].
//
// # What is promised
//
// A value has one encoding and an encoding one value: for each b that [Decode] accepts,
// Append(nil, Decode(b)) is b again. Decode refuses all else, also where npm does not: trailing
// bytes, escapes that the encoder does not write, invalid UTF-8, NaN. An encoder that would lose
// something refuses, too: [Append] takes no number that a float64 does not hold exactly, no time with a
// part of a millisecond, no string that is not UTF-8. Only -0 is not told from +0.
//
// Arrays nest at most [MaxDepth] deep, in and out. No bytes make this package panic.
//
// # Bytes and lifetimes
//
// All functions are pure and may be called at once. What they return shares no memory with their arguments,
// but that the Append functions extend dst as the builtin append does.
//
// # Errors
//
// Bytes that are no encoding give a [*SyntaxError] with the offset, values that have no encoding
// a [*ValueError] with the Go type. There are no others.
package bytewise

// MaxDepth is how deep arrays may nest: the array [] has depth 1, [[]] has depth 2. Encoding and decoding refuse more,
// so that neither hostile bytes nor a slice that contains itself can exhaust the stack.
const MaxDepth = 64

// UndefinedType is the type of [Undefined]; it has no other value.
type UndefinedType struct{}

// Undefined is JavaScript's undefined, the value that sorts after all others. Go's nil is null, which sorts first.
var Undefined UndefinedType

// String returns "undefined".
func (UndefinedType) String() string { return "undefined" }
