package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A warmDB is a database whose segments go warm after a minute.
type warmDB struct {
	*DB
	t       *testing.T
	fs      vfs.FS
	options Options
	writer  *undoWriter
	ahead   atomic.Int64 // of the clock
}

var warmConfig = batchlog.LogConfig{
	SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, Warm: []string{"/warm", "/warmer"}, BlobBytes: 1024, Undo: true,
}

func openWarm(t *testing.T, fs vfs.FS, c batchlog.LogConfig) *warmDB {
	w := &warmDB{t: t, fs: fs}
	w.options = Options{FS: fs, Log: c, Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }, ChainBytes: 16 << 10}
	w.DB = chainDB(t, w.options)
	w.writer = &undoWriter{t, w.DB, rand.New(rand.NewPCG(3, 1))}
	return w
}

func (w *warmDB) write(n int) {
	w.t.Helper()
	for i := range n {
		w.writer.write()
		if _, err := w.Space("c").Put(w.t.Context(), batchlog.K(i), make([]byte, 700)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// old makes what was written old, in segments of its own, and returns the last commit of it.
func (w *warmDB) old() (last batchlog.ID) {
	w.t.Helper()
	last = w.status().Head
	w.engine.log.RollIfOlder(w.options.Now().Add(time.Hour), time.Minute)
	w.write(1)
	w.sealed()
	if err := w.Flush(w.t.Context()); err != nil { // all is applied
		w.t.Fatal(err)
	}
	w.ahead.Add(int64(2 * time.Minute))
	return last
}

// age makes what was written old, and trims. It returns the last commit of it.
func (w *warmDB) age() (last batchlog.ID) {
	w.t.Helper()
	last = w.old()
	w.gone(last)
	return last
}

// gone trims until all commits up to last are warm, or dropped: segments that are not sealed yet go the next time.
func (w *warmDB) gone(last batchlog.ID) {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if err := w.Trim(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if w.engine.log.LastWarm() >= last || w.status().Oldest > last {
			return
		}
		if time.Since(began) > time.Minute {
			w.t.Fatalf("commits up to %d of %d are warm", w.engine.log.LastWarm(), last)
		}
	}
}

// sealed waits until all segments but the active one are full.
func (w *warmDB) sealed() {
	w.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		segments, _, _ := w.engine.log.Expired(w.options.Now().Add(time.Hour), time.Nanosecond)
		if segments == w.status().Logs[0].Segments-1 {
			return
		}
		if time.Since(began) > time.Minute {
			w.t.Fatal("segments are not sealed")
		}
	}
}

func (w *warmDB) status() batchlog.Status {
	w.t.Helper()
	st, err := w.Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// check looks at every inverse, and has all verified.
func (w *warmDB) check() {
	w.t.Helper()
	all := states(w.t, w.DB)
	for id := 1; id < len(all); id++ {
		mustInvert(w.t, w.DB, batchlog.ID(id), all[id-1], all[id])
	}
	if r := verified(w.t, w.DB); r.Inverses != int64(len(all)-1) {
		w.t.Errorf("verify has compared %d inverses of %d", r.Inverses, len(all)-1)
	}
}

// files are those in all warm directories whose names end so.
func (w *warmDB) files(suffix string) (found []string) {
	w.t.Helper()
	for _, dir := range warmConfig.Warm {
		dir = filepath.Join(dir, w.status().UUID)
		names, err := w.fs.List(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, suffix) && name != "OWNER" {
				found = append(found, filepath.Join(dir, name))
			}
		}
	}
	return found
}

// hotInverse is the first commit whose inverse is in the store.
func (w *warmDB) hotInverse() batchlog.ID {
	w.t.Helper()
	id, err := w.engine.store.FirstInverse(1)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// When segments go warm their chains and inverses go along, out of the store, and everything is as before; when they are dropped nothing is left of them.
func TestWarm(t *testing.T) {
	w := openWarm(t, vfs.NewMem(), warmConfig)
	for range 3 {
		w.write(100)
		old, st := w.age(), w.status()
		if warm := st.Logs[0].Warm; w.engine.log.LastWarm() < old || len(w.files(".seg")) != warm || len(w.files(".inverses")) != warm || st.Oldest != 1 {
			t.Fatalf("%d segments are warm, up to %d of %d, files %d, inverses %d, oldest %d", warm, w.engine.log.LastWarm(), old, len(w.files(".seg")), len(w.files(".inverses")), st.Oldest)
		}
		if last := w.engine.log.LastWarm(); w.hotInverse() != last+1 {
			t.Fatalf("the store has the inverse of commit %d, commits up to %d are warm", w.hotInverse(), last)
		}
		w.check()
	}
	if len(w.files(".ops")) == 0 {
		t.Error("no chain went along")
	}
	// Back to the beginning, by inverses that are warm.
	all := states(t, w.DB)
	for _, to := range []batchlog.ID{50, 250, 1, w.status().Head} {
		r := revertCase{space: w.Root(), to: to}
		r.commit(t, w.DB)
		r.check(t, states(t, w.DB))
	}
	if got := states(t, w.DB); len(got) != len(all)+4 {
		t.Errorf("%d commits", len(got)-1)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.DB = chainDB(t, w.options)
	w.writer.db = w.DB
	w.check()
	c := warmConfig
	c.WarmTTL = time.Minute
	if err := w.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	old := w.age()
	if st := w.status(); st.Logs[0].Warm != 0 || st.Oldest <= old || len(w.files("")) != 0 {
		t.Errorf("past their time: %d warm segments, oldest %d of %d, files %q", st.Logs[0].Warm, st.Oldest, st.Head, w.files(""))
	}
	verified(t, w.DB)
}

// Inverses that are made when their commits are warm already go there too, also where some are there before.
func TestWarmBackfill(t *testing.T) {
	c := warmConfig
	c.Undo = false
	w := openWarm(t, vfs.NewMem(), c)
	for i := range 4 { // of a segment some commits have inverses, others not
		w.write(60)
		c.Undo = i%2 == 0
		if err := w.Configure(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	w.write(1)
	w.age()
	before, had := w.engine.log.LastWarm(), len(w.files(".inverses"))
	if before == 0 || had == 0 {
		t.Fatalf("commits up to %d are warm, %d files of inverses", before, had)
	}
	if err := w.Backfill(t.Context(), batchlog.BackfillOptions{}); err != nil {
		t.Fatal(err)
	}
	w.check()
	if w.hotInverse() != 1 {
		t.Fatalf("the backfill has made inverses from %d on", w.hotInverse())
	}
	if err := w.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.hotInverse() != before+1 || len(w.files(".inverses")) <= had {
		t.Errorf("inverses from %d on are in the store, commits up to %d are warm; %d files, %d before", w.hotInverse(), before, len(w.files(".inverses")), had)
	}
	w.check()
}

// Whoever reads the log or takes commits back while segments move does not notice.
func TestWarmBusy(t *testing.T) {
	w := openWarm(t, vfs.NewMem(), warmConfig)
	w.write(200)
	all := states(t, w.DB)
	stop, wg := make(chan struct{}), sync.WaitGroup{}
	for reader := range 3 {
		wg.Go(func() {
			for n := reader; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if id := batchlog.ID(1 + n*7%200); reader == 0 {
					mustInvert(t, w.DB, id, all[id-1], all[id])
				} else if got := states(t, w.DB); len(got) < len(all) {
					t.Errorf("%d commits of %d", len(got), len(all))
				}
			}
		})
	}
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		w.age()
		w.write(20)
	}
	close(stop)
	wg.Wait()
	w.check()
}

// An inverse that is too large for a block goes along as well.
func TestWarmLarge(t *testing.T) {
	c := warmConfig
	c.BlobBytes = 0
	w := openWarm(t, vfs.NewMem(), c)
	for i := range 3 {
		var b batchlog.Batch
		for k := range 6 {
			b.Put(w.Space("large"), batchlog.K(k), bytes.Repeat([]byte{byte(i)}, 250_000))
		}
		if _, err := w.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	if old := w.age(); w.engine.log.LastWarm() < old {
		t.Fatalf("commits up to %d of %d are warm", w.engine.log.LastWarm(), old)
	}
	w.check()
	r := revertCase{space: w.Root(), to: 1}
	r.commit(t, w.DB)
	r.check(t, states(t, w.DB))
}

// Who is about to open a segment, or a chain, that goes warm at this moment finds it where it is then.
func TestWarmWhileOpening(t *testing.T) {
	for _, suffix := range []string{".seg", ".ops"} {
		t.Run(suffix, func(t *testing.T) {
			fs := &openingFS{FS: vfs.NewMem(), suffix: suffix}
			w := openWarm(t, fs, warmConfig)
			w.write(100)
			w.old()
			want := states(t, w.DB)
			if err := w.Close(); err != nil { // so that nothing is read from memory
				t.Fatal(err)
			}
			w.DB = chainDB(t, w.options)
			moved := false
			opening := func() {
				moved = true
				if err := w.Trim(t.Context()); err != nil {
					t.Error(err)
				}
			}
			fs.opening.Store(&opening)
			if got := states(t, w.DB); !moved || len(got) != len(want) || w.status().Logs[0].Warm == 0 {
				t.Errorf("moved: %t, %d commits of %d, %+v", moved, len(got), len(want), w.status().Logs[0])
			}
		})
	}
}

// An openingFS calls opening, once, before a file of the log is opened.
type openingFS struct {
	vfs.FS
	suffix  string
	opening atomic.Pointer[func()]
}

func (fs *openingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if strings.Contains(name, "log/main") && strings.HasSuffix(name, fs.suffix) {
		if opening := fs.opening.Swap(nil); opening != nil {
			(*opening)()
		}
	}
	return fs.FS.Open(name, opts...)
}

// Wherever the power fails while segments and inverses move, all is there after it, and the next move comes to its end, without leftovers.
func TestWarmCrash(t *testing.T) {
	for percent := range 3 {
		t.Run(fmt.Sprint(percent*50, " % of what was not synced"), func(t *testing.T) {
			fs := crashfs.New()
			w := openWarm(t, fs, warmConfig)
			w.write(60)
			w.old()
			want := states(t, w.DB)
			var clones []*crashfs.FS
			rng := rand.New(rand.NewPCG(uint64(percent), 5))
			every := 1
			if testing.Short() {
				every = 13
			}
			var changes atomic.Int64
			watch := &watchedFS{FS: fs, changed: func() {
				if int(changes.Add(1))%every == 0 {
					clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * percent, RNG: rng}))
				}
			}}
			moved := w.move(watch)
			if len(clones) == 0 || moved == 0 {
				t.Fatalf("%d moments, %d segments", len(clones), moved)
			}
			for i, clone := range clones {
				t.Run(fmt.Sprint(i), func(t *testing.T) { checkCrashed(t, w, clone, want) })
			}
		})
	}
}

// move has the segments go warm on a disk that is watched.
func (w *warmDB) move(fs vfs.FS) (moved int) {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	o := w.options
	o.FS = fs
	w.DB = chainDB(w.t, o)
	if err := w.Trim(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return w.status().Logs[0].Warm
}

func checkCrashed(t *testing.T, before *warmDB, fs *crashfs.FS, want []map[string]string) {
	w := openWarm(t, fs, warmConfig)
	w.ahead.Store(before.ahead.Load())
	if got := states(t, w.DB); len(got) != len(want) {
		t.Fatalf("%d commits, want %d", len(got)-1, len(want)-1)
	}
	w.check()
	if err := w.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.check()
	st := w.status()
	files := slices.Concat(w.files(""), hotFiles(t, fs))
	segments := slices.DeleteFunc(slices.Clone(files), func(name string) bool { return !strings.HasSuffix(name, ".seg") })
	if len(segments) != st.Logs[0].Segments || slices.ContainsFunc(files, func(name string) bool { return strings.HasSuffix(name, ".part") }) {
		t.Errorf("%d segments in files %q", st.Logs[0].Segments, files)
	}
	if last := w.engine.log.LastWarm(); last == 0 || w.hotInverse() <= last {
		t.Errorf("the store has the inverse of commit %d, commits up to %d are warm", w.hotInverse(), last)
	}
}

func hotFiles(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("db/log/main")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A watchedFS tells before each change of the warm directories or of the log's, and when a file there was synced.
type watchedFS struct {
	vfs.FS
	changed func()
}

func watched(name string) bool {
	return strings.Contains(name, "warm") || strings.Contains(name, "log/main")
}

func (fs *watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err == nil && watched(name) {
		fs.changed()
		f = &watchedFile{f, fs.changed}
	}
	return f, err
}

func (fs *watchedFS) Remove(name string) error {
	if watched(name) {
		fs.changed()
	}
	return fs.FS.Remove(name)
}

func (fs *watchedFS) Rename(from, to string) error {
	err := fs.FS.Rename(from, to)
	if watched(to) {
		fs.changed()
	}
	return err
}

func (fs *watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err == nil && watched(name) {
		f = &watchedFile{f, fs.changed}
	}
	return f, err
}

type watchedFile struct {
	vfs.File
	changed func()
}

func (f *watchedFile) Sync() error {
	err := f.File.Sync()
	f.changed()
	return err
}

// A warm directory that is full is no trouble but that segments stay where they are; another one is taken.
func TestWarmFull(t *testing.T) {
	fs := vfs.NewMem()
	w := openWarm(t, fs, warmConfig)
	w.write(100)
	w.old()
	full := &fullFS{FS: fs}
	full.part.Store("/warm/")
	w.move(full)
	if names := w.files(".seg"); len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "/warm/") }) {
		t.Errorf("segments are in %q", names)
	}
	full.part.Store("/warm")
	w.writer.db = w.DB
	w.write(50)
	old := w.old()
	if err := w.refusedTrim(); !errors.Is(err, batchlog.ErrNoSpace) || !strings.Contains(fmt.Sprint(err), "/warm") {
		t.Errorf("full: %v", err)
	}
	w.check()
	full.part.Store("nothing")
	w.gone(old)
	if st := w.status(); st.State != "open" {
		t.Errorf("%+v", st.Logs[0])
	}
	if parts := w.files(".part"); len(parts) > 0 {
		t.Errorf("left behind: %q", parts)
	}
	w.check()
}

// A fullFS has no space for files whose names begin so.
type fullFS struct {
	vfs.FS
	part atomic.Value
}

func (fs *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &fullFile{f, fs, name}, nil
}

func (fs *fullFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return &fullFile{f, fs, name}, nil
}

type fullFile struct {
	vfs.File
	fs   *fullFS
	name string
}

func (f *fullFile) full() error {
	if strings.HasPrefix(f.name, f.fs.part.Load().(string)) {
		return &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	return nil
}

func (f *fullFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.full(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func (f *fullFile) Write(b []byte) (int, error) {
	if err := f.full(); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

// Until the table names the new place all is as it was.
func TestWarmTableFails(t *testing.T) {
	fs := &fullFS{FS: vfs.NewMem()}
	fs.part.Store("nothing")
	w := openWarm(t, fs, warmConfig)
	w.write(100)
	old := w.old()
	fs.part.Store("db/log/main/table-")
	for range 2 {
		_ = w.refusedTrim()
		if w.engine.log.LastWarm() != 0 {
			t.Errorf("commits up to %d are warm", w.engine.log.LastWarm())
		}
		w.check()
	}
	fs.part.Store("nothing")
	w.gone(old)
	w.check()
}

// A damaged segment stays where it is, and is told of; those after it move.
func TestWarmDamaged(t *testing.T) {
	fs := vfs.NewMem()
	w := openWarm(t, fs, warmConfig)
	w.write(150)
	old := w.old()
	commits, _ := w.engine.log.Beside(w.engine.log.Oldest())
	second, _ := w.engine.log.Beside(commits.Last + 1)
	names := hotFiles(t, fs)
	name := filepath.Join("db/log/main", names[slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, fmt.Sprintf("%020d-", second.First)) })])
	flip(t, fs, name, 4096+64)
	w.gone(old)
	st := w.status() // it is found when it is sealed, or, if it was by then, when it would go
	if log := st.Logs[0]; log.Warm != len(w.files(".seg")) || log.Warm < 3 || len(log.Damaged) != 1 || !strings.Contains(log.Damaged[0], filepath.Base(name)) {
		t.Errorf("%+v", log)
	}
	for id := batchlog.ID(1); id <= st.Head; id++ { // inverses are there, whatever became of the commit
		r, err := w.Inverse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A file of inverses that is lost or damaged is told of by its name, by who needs it and by Verify; what else there is stays.
func TestWarmInversesDamaged(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, fs vfs.FS, file string){
		"lost": func(t *testing.T, fs vfs.FS, file string) {
			if err := fs.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": func(t *testing.T, fs vfs.FS, file string) { flip(t, fs, file, 100) },
		"swapped": func(t *testing.T, fs vfs.FS, file string) {
			dir := filepath.Dir(file)
			for _, other := range listAll(t, fs, dir) {
				if strings.HasSuffix(other, ".inverses") && other != file {
					rewrite(t, fs, file, func([]byte) []byte {
						b, err := disk.ReadFile(fs, other)
						if err != nil {
							t.Fatal(err)
						}
						return b
					})
					return
				}
			}
			t.Fatal("no other file")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			w := openWarm(t, fs, warmConfig)
			w.write(100)
			w.age()
			_, file := w.engine.log.Beside(1)
			harm(t, fs, file)
			var damage *batchlog.CorruptError
			if _, err := w.Inverse(t.Context(), 1); !errors.As(err, &damage) || damage.File != file {
				t.Errorf("inverse: %v", err)
			}
			if r, err := w.Verify(t.Context(), VerifyOptions{}); err != nil || len(r.Problems) == 0 || r.Problems[0].File != file {
				t.Errorf("verify: %v, %v", r.Problems, err)
			}
			first, _ := w.engine.log.Beside(1)
			r, err := w.Inverse(t.Context(), first.Last+1)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// flip flips a bit of a file.
func flip(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b, at)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
