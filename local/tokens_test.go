package local

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Of all writes with one token one is committed, as long as the log has it, whatever is trimmed, killed and opened again between.
func TestTokens(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 8
	}
	again, retried, killed := 0, 0, 0
	for seed := range seeds {
		r := &tokenRun{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 21)), fs: crashfs.New(), now: time.Unix(1e9, 0), known: map[string]batchlog.ID{}}
		r.open()
		for range 300 {
			r.step()
		}
		if err := r.db.Close(); err != nil {
			t.Fatal(err)
		}
		again, retried, killed = again+r.again, retried+r.retried, killed+r.killed
	}
	if again < 20 || retried < 40 || killed < 40 {
		t.Errorf("%d tokens used again, %d writes retried, %d kills: too few", again, retried, killed)
	}
}

type tokenRun struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	fs    *crashfs.FS
	now   time.Time
	db    *DB
	known map[string]batchlog.ID // the newest commit with each token

	again, retried, killed int
}

func (r *tokenRun) open() {
	r.t.Helper()
	db, err := Open("db", &Options{
		FS: r.fs, Now: func() time.Time { return r.now }, MemTableBytes: 64 << 10 << (4 * r.rng.IntN(3)), CacheBytes: 1 << 20,
		Log: batchlog.LogConfig{SegmentBytes: 16 << 10, HotTTL: time.Minute},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.db = db
}

func (r *tokenRun) step() {
	r.t.Helper()
	switch n := r.rng.IntN(20); {
	case n < 13:
		r.write()
	case n < 15:
		r.now = r.now.Add(time.Duration(r.rng.IntN(80)) * time.Second)
	case n < 18:
		if err := r.db.Trim(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	case n < 19:
		if err := r.db.Flush(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	default: // kill -9: nothing that is not on the disk is left
		r.killed++
		fs := r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
		_ = r.db.Close() // of the process that is no more
		r.fs = fs
		r.open()
	}
}

// write writes with one of a few tokens.
func (r *tokenRun) write() {
	r.t.Helper()
	token := fmt.Sprint("t", r.rng.IntN(8))
	oldest, before := r.db.engine.log.Oldest(), head(r.t, r.db)
	var b batchlog.Batch
	b.Token = token
	b.Put(r.db.Space("a"), batchlog.K(r.rng.IntN(10)), make([]byte, r.rng.IntN(3000)))
	id, err := r.db.Write(r.t.Context(), &b)
	if err != nil {
		r.t.Fatal(err)
	}
	known := r.known[token]
	switch {
	case id == known: // it may be known a little longer than the log has its commit
		r.retried++
	case known >= oldest && known > 0:
		r.t.Fatalf("seed %d: token %s of commit %d, which the log has from %d on, was committed again as %d", r.seed, token, known, oldest, id)
	case id != before+1:
		r.t.Fatalf("seed %d: token %s of commit %d: commit %d, head was %d", r.seed, token, known, id, before)
	default:
		if known > 0 {
			r.again++
		}
		r.known[token] = id
	}
}
