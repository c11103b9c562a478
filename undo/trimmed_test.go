package undo_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

// What the log no longer has can't be taken back, and nothing pretends that it can; what it has, can.
func TestTrimmed(t *testing.T) {
	now := time.Now()
	db := open(t, local.Options{
		Log: batchlog.LogConfig{Undo: true, HotTTL: time.Hour, SegmentBytes: batchlog.MinSegmentBytes},
		Now: func() time.Time { return now },
	})
	s := db.Space("s")
	put(t, s, "still", "there")
	put(t, s, "k", "old")
	now = now.Add(2 * time.Hour)
	trim := func() batchlog.Status {
		t.Helper()
		if err := db.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, err := db.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	trim()
	id := put(t, s, "k", "new") // begins a segment; the one before is sealed in the background
	want(t, s, "k", "new")
	status := trim()
	for status.Oldest != id {
		time.Sleep(time.Millisecond)
		status = trim()
	}
	if have := []batchlog.IDRange{{First: id, Last: id}}; fmt.Sprint(status.Undo.Have) != fmt.Sprint(have) {
		t.Errorf("have %v, want %v", status.Undo.Have, have)
	}
	var missing *batchlog.InverseError
	if _, err := undo.Undo(t.Context(), db.DB, 2, undo.Options{}); !errors.As(err, &missing) || !missing.Gone || missing.ID != 2 {
		t.Errorf("undo of what is gone: %v", err)
	}
	if _, err := undo.To(t.Context(), db.DB, 1, undo.Options{}); !errors.As(err, &missing) || !missing.Gone {
		t.Errorf("to what is gone: %v", err)
	}
	if err := db.Backfill(t.Context(), batchlog.BackfillOptions{}); err != nil {
		t.Errorf("backfill with nothing to do: %v", err)
	}
	versions := func(key any, want ...string) {
		t.Helper()
		var got []string
		for v, err := range undo.History(t.Context(), db.DB, s, batchlog.K(key)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%d/%d %s", v.ID, v.Before, v.Value.Bytes))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("history of %v: %q, want %q", key, got, want)
		}
	}
	versions("k", "3/0 new", "0/3 old")
	versions("still", "0/0 there")
	versions("never")
	if _, err := undo.To(t.Context(), db.DB, 2, undo.Options{}); err != nil { // the log begins right behind it
		t.Fatal(err)
	}
	want(t, s, "k", "old")
}
