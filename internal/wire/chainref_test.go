package wire

import (
	"testing"
)

// A stretch ends where the keys go back, or stay; only the op on the key that a range delete begins with goes on behind it.
func TestStretches(t *testing.T) {
	for _, c := range []struct {
		what  string
		kinds []Kind
		keys  []string
		want  string // of each op, whether it begins a stretch
	}{
		{"ascending", []Kind{Put, Delete, Put}, []string{"a", "b", "c"}, "100"},
		{"an empty key first", []Kind{Put, Put}, []string{"", "a"}, "10"},
		{"back", []Kind{Put, Put, Put}, []string{"b", "a", "b"}, "110"},
		{"the same key twice", []Kind{Put, Put, Delete}, []string{"a", "a", "a"}, "111"},
		{"a range delete and the op on its lowest key", []Kind{DeleteRange, Put, Put}, []string{"a", "a", "b"}, "100"},
		{"an op and a range delete from its key on", []Kind{Put, DeleteRange}, []string{"a", "a"}, "11"},
		{"two range deletes from one key on", []Kind{DeleteRange, DeleteRange}, []string{"a", "a"}, "11"},
		{"a range delete, two ops on its lowest key", []Kind{DeleteRange, Put, Put}, []string{"a", "a", "a"}, "101"},
	} {
		var s Stretches
		got := ""
		key := make([]byte, 1) // used again, as a reader's may be
		for i, kind := range c.kinds {
			key = append(key[:0], c.keys[i]...)
			if s.Begin(kind, key) {
				got += "1"
			} else {
				got += "0"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
