package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2"
)

// getFloor: a Get held with nothing to wait for takes at most so many times what Pebble's takes.
const getFloor = 1.2

type getOptions struct {
	keys, loadedKeys int
	cacheMiB         int64
	duration, slice  time.Duration
}

// getMode reads the same keys from batchlog and from Pebble, a slice of time each in turn, so that what disturbs one
// disturbs the other.
func getMode(fs *flag.FlagSet) runner {
	o := &getOptions{}
	fs.IntVar(&o.keys, "keys", 1_000_000, "keys, flushed, compacted and cached")
	fs.IntVar(&o.loadedKeys, "loaded-keys", 200_000, "keys, as they were loaded: some in the memtable, the rest in tables not yet compacted")
	fs.Int64Var(&o.cacheMiB, "cache", 256, "MiB of block cache of both: all keys fit")
	fs.DurationVar(&o.duration, "duration", 9*time.Second, "measured time of each state, all contestants together")
	fs.DurationVar(&o.slice, "slice", 50*time.Millisecond, "time that each has at once")
	return func(ctx context.Context, e *env) (*report, error) { return o.run(ctx, e) }
}

// A getResult is what one state of the stores measured, in nanoseconds a Get.
type getResult struct {
	State  string            `json:"state"`
	Keys   int               `json:"keys"`
	Shape  [2]int            `json:"shape"`  // tables that a read may have to look at (read amplification): of batchlog, of Pebble
	Nanos  map[string]spread `json:"nanos"`  // by contestant, over slices
	Ratios map[string]spread `json:"ratios"` // batchlog's time to the contestant's, over slices
}

// A getter is a contestant: get reads the value of a key and is done with it.
type getter struct {
	name string
	get  func(key []byte) (valueLen int, err error)
}

func (o *getOptions) run(ctx context.Context, e *env) (*report, error) {
	r := &report{}
	t := table{
		title: fmt.Sprintf("Get of random keys that are there, one goroutine, slices of %s in turn (median [min-max] of slices)", o.slice),
		head:  []string{"state", "keys", "contestant", "read amp", "ns/op", "batchlog takes"},
		note: "batchlog hands out the caller's own copy, Pebble bytes to be given back with a Close, which is part of the time; the value is looked at.\n" +
			"pebble+copy makes the copy, too. batchlog Stale is the same Get without the wait.",
	}
	var results []getResult
	for _, state := range []struct {
		name      string
		keys      int
		compacted bool
	}{{"as loaded", o.loadedKeys, false}, {"compacted, cached", o.keys, true}} {
		e.tell("get: %d keys, %s", state.keys, state.name)
		result, err := o.state(ctx, filepath.Join(e.dir, fmt.Sprint(state.keys)), state.keys, state.compacted)
		if err != nil {
			return nil, err
		}
		result.State = state.name
		results = append(results, result)
		for i, name := range []string{ours, "batchlog Stale", "pebble", "pebble+copy"} {
			row := []string{state.name, figure(float64(state.keys)), name, fmt.Sprint(result.Shape[i/2]), result.Nanos[name].String()}
			if name != ours {
				row = append(row, result.Ratios[name].String()+" ×")
			}
			t.add(row...)
		}
		r.Checks = append(r.Checks, atMost("Get, "+state.name+": pebble", result.Ratios["pebble"].Median, getFloor, "×"))
	}
	r.Results, r.tables = results, []table{t}
	return r, nil
}

func (o *getOptions) state(ctx context.Context, dir string, keys int, compacted bool) (_ getResult, err error) {
	db, err := o.openOurs(ctx, filepath.Join(dir, ours), keys, compacted)
	if err != nil {
		return getResult{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	peer, err := o.openPebble(filepath.Join(dir, "pebble"), keys, compacted)
	if err != nil {
		return getResult{}, err
	}
	defer func() { err = errors.Join(err, peer.Close()) }()
	getters := contestants(ctx, db, peer)
	key := make([]byte, keyBytes)
	for n := range uint64(keys) { // each key once: blocks are cached, and all is there
		putKey(key, n)
		for _, g := range getters {
			if size, err := g.get(key); err != nil || size != valueBytes {
				return getResult{}, fmt.Errorf("%s: key %d: %d bytes, %w", g.name, n, size, err)
			}
		}
	}
	st, err := db.Status(ctx)
	if err != nil {
		return getResult{}, err
	}
	result, err := o.compete(ctx, getters, keys)
	result.Shape = [2]int{st.Store.ReadAmp, peer.Metrics().ReadAmp()}
	return result, err
}

func contestants(ctx context.Context, db *local.DB, peer *pebble.DB) []getter {
	s := benchSpace(db)
	return []getter{
		{ours, func(key []byte) (int, error) {
			v, err := s.Get(ctx, key)
			return look(v), err
		}},
		{"pebble", func(key []byte) (int, error) {
			v, closer, err := peer.Get(key)
			if err != nil {
				return 0, err
			}
			return look(v), closer.Close()
		}},
		{"batchlog Stale", func(key []byte) (int, error) {
			v, err := s.Get(ctx, key, batchlog.Stale())
			return look(v), err
		}},
		{"pebble+copy", func(key []byte) (int, error) {
			v, closer, err := peer.Get(key)
			if err != nil {
				return 0, err
			}
			own := append(make([]byte, 0, len(v)), v...)
			return look(own), closer.Close()
		}},
	}
}

// look reads the value that was got, as whoever gets one does: Pebble hands out bytes of a block that the processor
// has yet to fetch. It returns the value's length.
func look(v []byte) int {
	for at := 0; at < len(v); at += 64 {
		looked += v[at]
	}
	return len(v)
}

// looked keeps the compiler from leaving out the reads of look. There is one goroutine.
var looked byte

// compete gives each contestant a slice in turn, in random order, until the time is over.
func (o *getOptions) compete(ctx context.Context, getters []getter, keys int) (getResult, error) {
	nanos, ratios := map[string][]float64{}, map[string][]float64{}
	random := rand.New(rand.NewPCG(1, uint64(keys)))
	for end := time.Now().Add(o.duration); time.Now().Before(end) || len(nanos[ours]) == 0; {
		turn := map[string]float64{}
		for _, i := range random.Perm(len(getters)) {
			if err := ctx.Err(); err != nil {
				return getResult{}, err
			}
			t, err := getSlice(getters[i], rand.NewPCG(random.Uint64(), 0), keys, o.slice)
			if err != nil {
				return getResult{}, err
			}
			turn[getters[i].name] = t
		}
		for name, t := range turn {
			nanos[name] = append(nanos[name], t)
			ratios[name] = append(ratios[name], turn[ours]/t)
		}
	}
	result := getResult{Keys: keys, Nanos: map[string]spread{}, Ratios: map[string]spread{}}
	for name := range nanos {
		result.Nanos[name], result.Ratios[name] = spreadOf(nanos[name]), spreadOf(ratios[name])
	}
	return result, nil
}

// getSlice is the nanoseconds of a Get of a random key. The clock is read once in 64 Gets.
func getSlice(g getter, random *rand.PCG, keys int, slice time.Duration) (float64, error) {
	key := make([]byte, keyBytes)
	count := 0
	start := time.Now()
	for time.Since(start) < slice {
		for range 64 {
			putKey(key, random.Uint64()%uint64(keys))
			if size, err := g.get(key); err != nil || size != valueBytes {
				return 0, fmt.Errorf("%s: %d bytes, %w", g.name, size, err)
			}
		}
		count += 64
	}
	return float64(time.Since(start)) / float64(count), nil
}

// openOurs opens a batchlog with keys in it.
func (o *getOptions) openOurs(ctx context.Context, dir string, keys int, compacted bool) (*local.DB, error) {
	options := &local.Options{CacheBytes: o.cacheMiB << 20}
	db, err := local.Open(dir, options)
	if err != nil {
		return nil, err
	}
	s := benchSpace(db)
	var b batchlog.Batch
	err = load(keys, func(ops []op) error {
		b.Reset()
		for _, o := range ops {
			b.Put(s, o.key, o.value)
		}
		_, err := db.Write(ctx, &b)
		return err
	})
	if err == nil {
		_, err = viewID(ctx, db) // all is applied
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if !compacted {
		return db, nil
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	// The store is a plain Pebble: it is compacted as the peer is, while it is closed.
	storeOptions := pebbleAsOurs()
	storeOptions.ErrorIfNotExists = true
	store, err := pebble.Open(filepath.Join(dir, "store"), storeOptions)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(compact(ctx, store), store.Close()); err != nil {
		return nil, err
	}
	return local.Open(dir, options)
}

func (o *getOptions) openPebble(dir string, keys int, compacted bool) (*pebble.DB, error) {
	options := pebbleAsOurs()
	options.CacheSize = pebbleCache(o.cacheMiB << 20)
	db, err := pebble.Open(dir, options)
	if err != nil {
		return nil, err
	}
	err = load(keys, func(ops []op) error {
		b := db.NewBatch()
		for _, o := range ops {
			if err := b.Set(o.key, o.value, nil); err != nil {
				return err
			}
		}
		return errors.Join(db.Apply(b, pebble.NoSync), b.Close())
	})
	if err == nil && compacted {
		err = errors.Join(db.Flush(), compact(context.Background(), db))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func compact(ctx context.Context, db *pebble.DB) error {
	return db.Compact(ctx, []byte{0}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false)
}

// load writes the first keys of the sequence of [putKey], a hundred to a batch.
func load(keys int, write func([]op) error) error {
	const some = 100
	g := newGenerator(uint64(keys), some)
	for n := 0; n < keys; n += some {
		ops := g.next()[:min(some, keys-n)]
		for i := range ops {
			putKey(ops[i].key, uint64(n+i))
		}
		if err := write(ops); err != nil {
			return err
		}
	}
	return nil
}
