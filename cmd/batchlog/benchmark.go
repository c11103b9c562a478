package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

const (
	benchKeyBytes   = 16
	benchValueBytes = 100
	benchKeys       = 100_000 // that gets choose from
	benchFollowed   = 20_000  // most commits whose way to the follower is timed
	benchSeed       = 1
)

// A benchmark measures in directories within dir.
type benchmark struct {
	dir      string
	duration time.Duration // of each figure
	open     func(dir string) (*local.DB, error)
	say      func(text string)
	made     int // directories
}

// fresh calls fn with a new database, which is removed after.
func (b *benchmark) fresh(fn func(db *local.DB) error) error {
	b.made++
	dir := filepath.Join(b.dir, fmt.Sprint(b.made))
	db, err := b.open(dir)
	if err != nil {
		return err
	}
	err = fn(db)
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if removeErr := os.RemoveAll(dir); err == nil {
		err = removeErr
	}
	return err
}

// An author makes keys and values, the same ones in every run.
type author struct {
	rand  *rand.Rand
	key   [benchKeyBytes]byte
	value [benchValueBytes]byte
}

func newAuthor(n int) *author {
	a := &author{rand: rand.New(rand.NewPCG(benchSeed, uint64(n)))}
	for i := range a.value {
		a.value[i] = byte(a.rand.Uint32())
	}
	return a
}

// put adds a put of a random key.
func (a *author) put(b *batchlog.Batch, s *batchlog.Space) batchlog.Key {
	binary.BigEndian.PutUint64(a.key[:8], a.rand.Uint64())
	binary.BigEndian.PutUint64(a.key[8:], a.rand.Uint64())
	b.Put(s, a.key[:], a.value[:])
	return a.key[:]
}

// load writes with so many writers until fill says that it is enough, and returns what each write took.
func load(ctx context.Context, db *local.DB, writers int, more func() bool, fill func(a *author, b *batchlog.Batch)) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([][]time.Duration, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			a := newAuthor(w)
			var b batchlog.Batch
			for more() && ctx.Err() == nil {
				b.Reset()
				fill(a, &b)
				start := time.Now()
				if _, err := db.Write(ctx, &b); err != nil {
					cancel(err)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	return slices.Concat(took...), context.Cause(ctx)
}

// during is true for so long.
func during(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

// writes measures durable commits.
func (b *benchmark) writes(ctx context.Context, db *local.DB, writers, ops int) (writeResult, error) {
	s := db.Space("bench")
	start := time.Now()
	took, err := load(ctx, db, writers, during(b.duration), func(a *author, batch *batchlog.Batch) {
		for range ops {
			a.put(batch, s)
		}
	})
	if err != nil {
		return writeResult{}, err
	}
	acknowledged := time.Since(start)
	view, err := db.View(ctx) // held until all is applied
	if err != nil {
		return writeResult{}, err
	}
	applied := time.Since(start)
	n := float64(len(took))
	return writeResult{
		Writers: writers, Ops: ops, Acknowledged: n / acknowledged.Seconds(), Applied: n / applied.Seconds(), Latency: spread(took),
	}, view.Close()
}

// gets measures Get of keys that are there, with nothing to wait for.
func (b *benchmark) gets(ctx context.Context, db *local.DB, r *benchResult) error {
	s := db.Space("bench")
	const some = 1000
	key := func(i int64) batchlog.Key { return batchlog.K(float64(i)) }
	value := make([]byte, benchValueBytes)
	for first := int64(0); first < benchKeys; first += some {
		var batch batchlog.Batch
		for i := range int64(some) {
			batch.Put(s, key(first+i), value)
		}
		if _, err := db.Write(ctx, &batch); err != nil {
			return err
		}
	}
	random := newAuthor(0).rand
	var took []time.Duration
	for more := during(b.duration); more() && ctx.Err() == nil; {
		k := key(random.Int64N(benchKeys))
		start := time.Now()
		if _, err := s.Get(ctx, k); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	r.Get = spread(took)
	return context.Cause(ctx)
}

// getsOwn measures Get of the key that was just written.
func (b *benchmark) getsOwn(ctx context.Context, db *local.DB, r *benchResult) error {
	s := db.Space("bench")
	a := newAuthor(0)
	var took []time.Duration
	var batch batchlog.Batch
	for more := during(b.duration); more() && ctx.Err() == nil; {
		batch.Reset()
		k := a.put(&batch, s)
		if _, err := db.Write(ctx, &batch); err != nil {
			return err
		}
		start := time.Now()
		if _, err := s.Get(ctx, k); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	r.GetOwn = spread(took)
	return context.Cause(ctx)
}

// follow measures how long after its acknowledgement a commit reaches a live follower. One that comes before is 0.
func (b *benchmark) follow(ctx context.Context, db *local.DB, r *benchResult) error {
	acknowledged := make([]time.Time, benchFollowed+1) // by id
	arrived := make([]time.Time, benchFollowed+1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	goal := make(chan batchlog.ID, 1)
	go func() {
		last := batchlog.ID(0)
		for c, err := range db.Tail(ctx, batchlog.TailOptions{}) {
			if err != nil {
				ended <- err
				return
			}
			arrived[c.ID] = time.Now()
			if last == 0 {
				select {
				case last = <-goal:
				default:
				}
			}
			if c.ID == last {
				break
			}
		}
		ended <- nil
	}()
	s := db.Space("bench")
	a := newAuthor(0)
	var batch batchlog.Batch
	id := batchlog.ID(0)
	for more := during(b.duration); more() && int(id) < benchFollowed-1 && ctx.Err() == nil; {
		batch.Reset()
		a.put(&batch, s)
		var err error
		if id, err = db.Write(ctx, &batch); err != nil {
			return err
		}
		acknowledged[id] = time.Now()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	goal <- id + 1
	if _, err := s.Put(ctx, batchlog.K("end"), nil); err != nil { // the follower may be past id
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	var took []time.Duration
	for i := range int(id) {
		took = append(took, max(0, arrived[i+1].Sub(acknowledged[i+1])))
	}
	r.Tail = spread(took)
	return nil
}

// catchUp measures how fast a follower reads what is there: all of it, and a space that one commit in a hundred is in, in stretches.
func (b *benchmark) catchUp(ctx context.Context, db *local.DB, r *benchResult) error {
	common, rare := db.Space("bench"), db.Space("rare")
	var n atomic.Int64
	_, err := load(ctx, db, 256, during(b.duration), func(a *author, batch *batchlog.Batch) {
		s := common
		if n.Add(1)%10_000 < 100 {
			s = rare
		}
		a.put(batch, s)
	})
	if err != nil {
		return err
	}
	head, err := db.Head(ctx)
	if err != nil {
		return err
	}
	read := func(spaces ...*batchlog.Space) (float64, error) {
		start, rounds := time.Now(), 0
		for more := during(b.duration); more(); rounds++ {
			for c, err := range db.Tail(ctx, batchlog.TailOptions{Until: head, Spaces: spaces}) {
				if err != nil {
					return 0, err
				}
				for _, err := range c.Ops() {
					if err != nil {
						return 0, err
					}
				}
			}
		}
		return float64(int64(head)*int64(rounds)) / time.Since(start).Seconds(), nil
	}
	if r.CatchUp, err = read(); err != nil {
		return err
	}
	r.Filtered, err = read(rare)
	return err
}

// spread sorts times and picks from them.
func spread(times []time.Duration) latency {
	if len(times) == 0 {
		return latency{}
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))]) / float64(time.Microsecond)
	}
	return latency{P50: at(0.5), P99: at(0.99), Max: at(1)}
}
