package seglog

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// everyChange is an edit with a change of each kind, with every field that it has.
func everyChange() edit {
	all := seg{
		first: 1 << 40, last: 1<<40 + 5, tag: segTag{1, 2, 3, 4}, state: sealed, warm: true, dir: "/warm/é", moving: "elsewhere", end: 1 << 50, size: 1<<50 + 9,
		oldest: -7, newest: 1 << 60, begun: -8, ended: 1 << 61, hash: [32]byte{9, 8, 7}, chains: []segChain{{[16]byte{5}, 1<<40 + 1, 77}, {[16]byte{6}, 1<<40 + 2, 0}},
	}
	var e edit
	for k := kind(1); k < kindEnd; k++ {
		e = append(e, change{kind: k, seg: all, low: 3, high: 1 << 41, name: "x.seg"})
	}
	return e
}

// Every change comes back with all that its kind says, and without the rest.
func TestEditCodec(t *testing.T) {
	e := everyChange()
	b := appendEdit(nil, e)
	got, err := parseEdit(b)
	if err != nil || len(got) != len(e) {
		t.Fatalf("%d changes of %d, %v", len(got), len(e), err)
	}
	for i, c := range got {
		has := kinds[c.kind].fields
		want := e[i]
		for _, f := range []struct {
			field field
			clear func()
		}{
			{fieldFirst, func() { want.seg.first = 0 }},
			{fieldLast, func() { want.seg.last = 0 }},
			{fieldTag, func() { want.seg.tag = segTag{} }},
			{fieldState, func() { want.seg.state, want.seg.warm = 0, false }},
			{fieldDir, func() { want.seg.dir = "" }},
			{fieldMoving, func() { want.seg.moving = "" }},
			{fieldEnd, func() { want.seg.end = 0 }},
			{fieldSize, func() { want.seg.size = 0 }},
			{fieldOldest, func() { want.seg.oldest = 0 }},
			{fieldNewest, func() { want.seg.newest = 0 }},
			{fieldBegun, func() { want.seg.begun = 0 }},
			{fieldEnded, func() { want.seg.ended = 0 }},
			{fieldHash, func() { want.seg.hash = [32]byte{} }},
			{fieldChains, func() { want.seg.chains = nil }},
			{fieldLow, func() { want.low = 0 }},
			{fieldHigh, func() { want.high = 0 }},
			{fieldName, func() { want.name = "" }},
		} {
			if has&f.field == 0 {
				f.clear()
			}
		}
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%s: %+v, want %+v", c.kind, c, want)
		}
	}
	for n := range b { // cut short an edit is another one, or none; it never panics
		if got, err := parseEdit(b[:n]); err == nil && len(got) >= len(e) {
			t.Errorf("%d of %d bytes: %d changes", n, len(b), len(got))
		}
	}
}

// What no edit can be is refused.
func TestEditRefused(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                {nil, errEditShort},
		"kind 0":                 {[]byte{0, 0}, errEditKind},
		"a kind of the future":   {[]byte{0, byte(kindEnd)}, errEditKind},
		"more dirs than bytes":   {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, errEditShort},
		"an endless number":      {[]byte{0, byte(kindMoved), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, errEditShort},
		"a directory of another": {[]byte{0, byte(kindMoving), 1, 0}, errEditValue},
		"a size below zero":      {[]byte{1, 0, byte(kindBegin), 1, 1, 2, 3, 4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, errEditValue},
		"a path in limbo":        {appendEdit(nil, edit{{kind: kindGone, name: "../x"}}), errEditValue},
		"no name in limbo":       {appendEdit(nil, edit{{kind: kindGone}}), errEditValue},
		"the directory in limbo": {appendEdit(nil, edit{{kind: kindGone, name: ".."}}), errEditValue},
	} {
		if got, err := parseEdit(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Whatever the bytes are, they are refused, or are an edit that is the same when it is written and read again; and it can follow a table
// or is refused by it.
func FuzzEdit(f *testing.F) {
	f.Add(appendEdit(nil, everyChange()))
	tab, err := (&table{}).apply(edit{{kind: kindBegin, seg: seg{first: 1}}})
	if err != nil {
		f.Fatal(err)
	}
	for e := range tab.snapshot {
		f.Add(appendEdit(nil, e))
	}
	f.Add(appendEdit(nil, edit{{kind: kindFull, seg: seg{first: 1, last: 9}}, {kind: kindBegin, seg: seg{first: 10, dir: "d"}}, {kind: kindDropped, seg: seg{last: 9}}, {kind: kindRemoved, high: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := bytes.Clone(b)
		e, err := parseEdit(b)
		if err != nil {
			return
		}
		clear(b) // it must have kept nothing of it
		again, err := parseEdit(appendEdit(nil, e))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%x is %+v, and then %+v, %v", kept, e, again, err)
		}
		if next, err := tab.apply(e); err == nil {
			for range next.snapshot {
			}
			next.find(1)
		}
	})
}
