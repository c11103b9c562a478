package bytewise

import "bytes"

// ArrayLen returns the size in bytes of the array that b begins with, from its [TagArray] to its closing [TagEnd].
// It finds where a path ends and the key begins, once for each op, so it reads structure only: tags, and the ends
// of strings and binary. Escapes, UTF-8, and numbers are [Decode]'s work; where [DecodeArrayPrefix] accepts, the sizes
// agree. Arrays deeper than [MaxDepth] are refused here as there.
//
// If the error is not nil, it is a [*SyntaxError]. ArrayLen allocates nothing else.
func ArrayLen(b []byte) (int, error) {
	if len(b) == 0 || b[0] != TagArray {
		return 0, notArray(b)
	}
	return arrayLen(b, MaxDepth)
}

// ElementLen returns the size in bytes of the value that b begins with, as it stands inside an array: strings and
// binary escaped and closed, as [AppendElement] writes them. [TagEnd] begins no element. As with [ArrayLen], the size says only where the
// element ends, not that Decode would accept it, and nothing is allocated but the [*SyntaxError].
func ElementLen(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, truncated(0)
	}
	if b[0] == TagArray {
		return arrayLen(b, MaxDepth-1)
	}
	return scalarLen(b, 0)
}

// arrayLen is the size of the array that b begins with, of at most maxDepth. The tag is not looked at.
//
// It counts depth instead of calling itself, so its time is linear and its stack constant.
func arrayLen(b []byte, maxDepth int) (int, error) {
	depth := 1
	for i := 1; i < len(b); {
		switch b[i] {
		case TagEnd:
			i++
			depth--
			if depth == 0 {
				return i, nil
			}
		case TagArray:
			if depth == maxDepth {
				return 0, &SyntaxError{i, tooDeep}
			}
			i++
			depth++
		case TagString: // as scalarLen does; paths are mostly strings, and the call would cost them a fifth
			end := bytes.IndexByte(b[i:], TagEnd)
			if end < 0 {
				return 0, truncated(len(b))
			}
			i += end + 1
		default:
			size, err := scalarLen(b, i)
			if err != nil {
				return 0, err
			}
			i += size
		}
	}
	return 0, truncated(len(b))
}

// scalarLen is the size of the element at offset in b that is not an array.
func scalarLen(b []byte, offset int) (int, error) {
	switch tag := b[offset]; tag {
	case TagString, TagBinary:
		// The escape leaves no 00 in a body.
		end := bytes.IndexByte(b[offset:], TagEnd)
		if end < 0 {
			return 0, truncated(len(b))
		}
		return end + 1, nil
	case TagNegative, TagPositive, TagDateBefore, TagDateAfter:
		if len(b)-offset < numberSize {
			return 0, truncated(len(b))
		}
		return numberSize, nil
	case TagNull, TagFalse, TagTrue, TagNegInf, TagPosInf, TagUndefined:
		return 1, nil
	default:
		return 0, badTag(offset, tag)
	}
}

// notArray is the error for a b that doesn't begin with [TagArray].
func notArray(b []byte) *SyntaxError {
	if len(b) == 0 {
		return truncated(0)
	}
	return &SyntaxError{0, "not an array"}
}
