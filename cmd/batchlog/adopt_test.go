package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

// goneWarm makes a database in dir whose older segments are in a warm directory.
func goneWarm(t *testing.T, dir, warm string) {
	t.Helper()
	later := time.Duration(0)
	db, err := local.Open(dir, &local.Options{
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, Warm: []string{warm}},
		Now: func() time.Time { return time.Now().Add(later) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range 100 {
		if _, err := db.Space("s").Put(t.Context(), batchlog.K(i), make([]byte, 700)); err != nil {
			t.Fatal(err)
		}
	}
	later = time.Hour
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if err := db.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := db.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Logs[0].Warm == st.Logs[0].Segments-1 {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatal("segments do not go warm")
		}
	}
}

// A copy of a database with a warm directory is refused, with the commands that settle whose that is; each of them does.
func TestAdopt(t *testing.T) {
	c := newCLI(t)
	at := filepath.Dir(c.db)
	warm := filepath.Join(at, "warm")
	goneWarm(t, c.db, warm)
	original := c.db
	copied := func(from, to string) string {
		to = filepath.Join(at, to)
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		return to
	}
	c.db = copied(original, "copy")
	other := copied(warm, "warm-copy")
	for _, args := range [][]string{{"status"}, {"get", "s", "1"}, {"space", "configure", "/", "--warm", other}} {
		r := c.fails(exitError, []string{warm, original, "a copy of", "batchlog adopt --db " + c.db}, args...)
		for _, hint := range []string{"batchlog adopt --db " + c.db + "\n", "adopt --db " + c.db + " --moved " + warm + "=COPY", "adopt --db " + c.db + " --leave " + warm} {
			if !strings.Contains(r.err, hint) {
				t.Errorf("no hint %q in %s", hint, r.err)
			}
		}
	}
	c.fails(exitUsage, []string{"OLD=NEW"}, "adopt", "--moved", warm)
	c.fails(exitError, []string{"none of the database"}, "adopt", "--leave", other)

	if out := c.must("adopt", "--leave", warm); !strings.Contains(out, warm) || !strings.Contains(out, "left") {
		t.Error(out)
	}
	c.must("verify")
	if out := c.must("status"); !strings.Contains(out, "directory "+warm+" is left: ") {
		t.Error(out)
	}
	c.must("space", "configure", "/", "--warm", filepath.Join(at, "own"))

	c.db = copied(original, "copy2")
	var printed struct{ Dirs []batchlog.DirStatus }
	if err := json.Unmarshal([]byte(c.must("adopt", "--json", "--moved", warm+"="+other)), &printed); err != nil {
		t.Fatal(err)
	}
	if len(printed.Dirs) != 1 || printed.Dirs[0].Dir != other || printed.Dirs[0].State != batchlog.DirReady {
		t.Errorf("%+v", printed)
	}
	c.must("verify")

	c.db = original
	c.must("verify")
	c.db = copied(original, "copy3")
	c.must("adopt")
	c.must("verify")
	taker := c.db
	c.db = original
	c.fails(exitError, []string{taker}, "status")
	c.must("adopt")
	c.must("verify")

	if err := os.Rename(warm, warm+"-away"); err != nil {
		t.Fatal(err)
	}
	if out := c.must("status"); !strings.Contains(out, "directory "+warm+" is missing: ") {
		t.Error(out)
	}
	c.fails(exitError, []string{warm, "is missing", "mount its disk"}, "tail", "--until", "head")
	c.db = filepath.Join(at, "none")
	c.fails(exitError, []string{"no database in"}, "adopt")
}
