package bytewise

import (
	"fmt"
	"strconv"
)

// A SyntaxError says where bytes stopped being the encoding of a value.
type SyntaxError struct {
	Offset int    // of the first byte that is wrong, in bytes from the start of the input; its size, when more bytes are needed
	Reason string // what is wrong there
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("bytewise: decode: offset %d: %s", e.Offset, e.Reason)
}

// A ValueError says why a value has no encoding. When the value stands in an array, it is about the element, not the array.
type ValueError struct {
	Type   string // the Go type, as %T prints it
	Reason string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("bytewise: encode %s: %s", e.Type, e.Reason)
}

// truncated is the error for an input of size bytes that ends too early.
func truncated(size int) *SyntaxError {
	return &SyntaxError{size, "unexpected end"}
}

// badTag is the error for a byte at offset that begins no value.
func badTag(offset int, tag byte) *SyntaxError {
	return &SyntaxError{offset, fmt.Sprintf("no value begins with %02x", tag)}
}

// tooDeep is the reason for refusing arrays within more than [MaxDepth] arrays.
var tooDeep = "arrays nest deeper than " + strconv.Itoa(MaxDepth)
