package local

import (
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
)

// A verification that is killed leaves nothing for long: its scratch store, which may be large, is removed when the database is open again.
func TestVerifyKilled(t *testing.T) {
	mem := crashfs.New()
	o := Options{FS: mem}
	db := openAt(t, &o)
	for i := range 10 {
		if _, err := db.Root().Put(t.Context(), batchlog.K(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	var killed *crashfs.FS
	_, err := db.Verify(t.Context(), VerifyOptions{Progress: func(p Progress) {
		if p.Stage == "commits" && killed == nil {
			var err error
			killed, err = mem.Copy()
			check(t, err)
		}
	}})
	check(t, err)
	check(t, db.Close())
	scratch := func() (found bool) {
		names, err := killed.List("/db")
		check(t, err)
		for _, name := range names {
			found = found || strings.HasPrefix(name, scratchPrefix)
		}
		return found
	}
	if !scratch() {
		t.Fatal("there was no scratch store when it was killed")
	}
	o.FS = killed
	db = openAt(t, &o)
	for began := time.Now(); scratch(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the scratch store is there still")
		}
	}
	check(t, db.Close())
}
