package bytewise

// The ranges below are half-open: they hold each k with low <= k < high, in the order of bytes.Compare. Of all
// encodings they hold those that are named and no others.
//
// The values of one type are a range, too: its lowest tag up to the byte after its highest, as
// TagNegInf to TagPosInf+1 for all numbers.

// PrefixRange returns the range of the arrays that begin with parts, that of just these parts included; with no parts,
// of all arrays. The error is Append's: a [*ValueError], and the parts count as within one array.
//
// low is the array left open: [TagEnd] or the tag of one more element follows, all below [TagHigh], so high is low and that.
// The bounds are npm's sorts.array.bound. What hangs below a closed path, as the keys of a space do, is in the range as well.
func PrefixRange(parts ...any) (low, high []byte, err error) {
	low = []byte{TagArray}
	for _, p := range parts {
		if low, err = appendValue(low, p, 1); err != nil {
			return nil, nil, err
		}
	}
	return low, followedBy(low, TagHigh), nil
}

// StringPrefixRange returns the range of the strings (not in an array) whose UTF-8 begins with the bytes of s; with s empty, of
// all strings. s may end within a character. No string begins with bytes that are not UTF-8, so then no encoding is in the range.
//
// UTF-8 has no ff, so high is low and an ff, as npm's sorts.string.bound has it (but for the empty string, where npm's bounds hold nothing).
func StringPrefixRange(s string) (low, high []byte) {
	low = append([]byte{TagString}, s...)
	return low, followedBy(low, TagHigh)
}

// BinaryPrefixRange returns the range of the binaries (not in an array) that begin with b; with b empty, of all.
//
// Unlike text, binary may go on with any number of ff, which npm's bound (b and an ff) leaves out. So high is
// the lowest bytes above all that begin with low: low without the ff it ends in, its last byte one higher.
func BinaryPrefixRange(b []byte) (low, high []byte) {
	low = append([]byte{TagBinary}, b...)
	last := len(low) - 1
	for low[last] == 0xff { // ends at the tag
		last--
	}
	return low, followedBy(low[:last], low[last]+1)
}

// followedBy returns a new slice of b and c.
func followedBy(b []byte, c byte) []byte {
	return append(append(make([]byte, 0, len(b)+1), b...), c)
}
