package wire

import (
	"bytes"
	"slices"

	"github.com/bytespace/batchlog/bytewise"
)

// A stored key is the path of its space, a tuple as bytewise encodes it, closed, and then the key itself. Without its last byte,
// 00, the path is open: what every stored key in the space and in those within begins with. The system's own spaces lie beside all
// others, behind a tag.

// SystemTag stands in front of the paths of the system's own spaces. It is no tag of package bytewise.
const SystemTag = 0x01

// RootPath is the empty path, closed. SystemPath is that of the system's own spaces.
var (
	RootPath   = []byte{0xa0, 0x00}
	SystemPath = []byte{SystemTag, 0xa0, 0x00}
)

// Typed is a closed or open path without the tag of a system space: what bytewise knows.
func Typed(path []byte) []byte {
	if len(path) > 0 && path[0] == SystemTag {
		return path[1:]
	}
	return path
}

// Open is a closed path without its end: what all stored keys within begin with.
func Open(path []byte) []byte { return path[:len(path)-1] }

// AfterOwn is the first stored key behind the own keys of the space with this closed path.
// What follows an open path is the end, 00, or the tag of another part, 10 and up: 01 lies between.
func AfterOwn(path []byte) []byte {
	return append(append(make([]byte, 0, len(path)), Open(path)...), 1)
}

// InOwnKeys reports whether the upper bound of a range is one of the space with that closed path.
func InOwnKeys(path, high []byte) bool {
	return len(high) >= len(path) && string(high[:len(path)]) == string(path) || string(high) == string(AfterOwn(path))
}

// SplitKey splits a stored key into the closed path of its space and the key within it. Keys that
// belong to no space, the store's own, are an error.
func SplitKey(stored []byte) (path, key []byte, err error) {
	if len(stored) == 0 {
		return nil, nil, ErrOpKey
	}
	rest := Typed(stored)
	n, err := bytewise.ArrayLen(rest)
	if err != nil {
		return nil, nil, ErrOpKey
	}
	n += len(stored) - len(rest)
	return stored[:n:n], stored[n:], nil
}

// HasAnyPrefix reports whether key begins with one of prefixes: whether a stored key
// lies within one of the spaces with these open paths.
func HasAnyPrefix(key []byte, prefixes [][]byte) bool {
	for _, p := range prefixes {
		if len(key) >= len(p) && string(key[:len(p)]) == string(p) {
			return true
		}
	}
	return false
}

// SortedPrefixes is prefixes for [HasSortedPrefix]: in order, without those that another one covers.
func SortedPrefixes(prefixes [][]byte) [][]byte {
	sorted := slices.SortedFunc(slices.Values(prefixes), bytes.Compare)
	kept := sorted[:0]
	for _, p := range sorted {
		if n := len(kept); n == 0 || !bytes.HasPrefix(p, kept[n-1]) {
			kept = append(kept, p)
		}
	}
	return kept
}

// HasSortedPrefix is [HasAnyPrefix] for what [SortedPrefixes] has returned. Work hardly grows with the number of prefixes.
func HasSortedPrefix(key []byte, prefixes [][]byte) bool {
	if len(prefixes) <= 8 {
		return HasAnyPrefix(key, prefixes)
	}
	// As none covers another, only the last one that is not above the key can begin it.
	at, found := slices.BinarySearchFunc(prefixes, key, bytes.Compare)
	return found || at > 0 && bytes.HasPrefix(key, prefixes[at-1])
}

// A KeyRange is the stored keys from Low on and below High.
type KeyRange struct{ Low, High []byte }
