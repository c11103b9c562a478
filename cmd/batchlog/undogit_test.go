package main

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var undoPoints = flag.Int("undo.points", 25, "how many points of the history TestUndoHistory goes to")

func noMeters(string, string, int64) *meter { return nil }

// TestUndoHistory imports the history of this repository and goes to points of it, back and forth: at each the store must have path, mode and blob hash of every file as git
// ls-tree -r has them for that commit. At the end the log holds every step.
func TestUndoHistory(t *testing.T) {
	repo := must1(openRepo(t.Context(), ownRepo(t).dir))(t)
	db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Log: batchlog.LogConfig{Undo: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := must1(newGitStore(db.DB, "r"))(t)
	im := &importer{repo: repo, store: store, plan: importPlan{Rev: "HEAD", All: true}, meter: func(int64) *meter { return nil }}
	loaded := must1(im.run(t.Context()))(t)
	hashes := map[batchlog.ID]string{}
	for c, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: loaded.Last}) {
		if err != nil {
			t.Fatal(err)
		}
		hashes[c.ID] = c.Labels["hash"]
	}
	points := *undoPoints
	if testing.Short() {
		points = min(2, points)
	}
	rng := rand.New(rand.NewPCG(1, uint64(points)))
	for n := range points {
		id := batchlog.ID(1 + rng.IntN(int(loaded.Last)))
		done, err := undo.To(t.Context(), db.DB, id, undo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := loaded.Last + batchlog.ID(n) + 1; done != want {
			t.Fatalf("step %d is commit %d, want %d", n, done, want)
		}
		c, err := compareGit(t.Context(), repo, store, noMeters)
		if err != nil || c.Commit != hashes[id] || len(c.Differences) > 0 || c.Files == 0 {
			t.Fatalf("step %d, to commit %d: at %s, want %s: %d files, %v, %v", n, id, c.Commit, hashes[id], c.Files, c.Differences, err)
		}
	}
	r, err := db.Verify(t.Context(), local.VerifyOptions{})
	if err != nil || len(r.Problems) > 0 || r.Inverses != r.Commits || r.Commits != int64(loaded.Last)+int64(points) {
		t.Errorf("verify: %d inverses of %d commits, %v, %v", r.Inverses, r.Commits, r.Problems, err)
	}
}
