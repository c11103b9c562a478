package undo

import (
	"encoding/binary"
	"testing"
)

// What a chain depends on is its keys, or, where these are too many, one range a space around them.
func TestReads(t *testing.T) {
	var r reads
	for i := range readsKeys + 1 {
		space := []byte{0xa0, 0x00}
		if i >= 10 {
			space = []byte{0xa0, 0x70, 'a', 0x00, 0x00} // within the root
		}
		if err := r.add(binary.BigEndian.AppendUint32(space, uint32(i))); err != nil {
			t.Fatal(err)
		}
		if i == 99 {
			if got := r.since(7); got.Base != 7 || len(got.Keys) != 100 || len(got.Ranges) != 0 || string(got.Keys[3]) != "\xa0\x00\x00\x00\x00\x03" {
				t.Errorf("of 100: %d keys, ranges %x", len(got.Keys), got.Ranges)
			}
		}
	}
	got := r.since(8)
	if len(got.Keys) != 0 || len(got.Ranges) != 2 || string(got.Ranges[0].Low) != "\xa0\x00\x00\x00\x00\x00" || string(got.Ranges[0].High) != "\xa0\x00\x00\x00\x00\x09\x00" {
		t.Errorf("of many: %d keys, ranges %x", len(got.Keys), got.Ranges)
	}
}
