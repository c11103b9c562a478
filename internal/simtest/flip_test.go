package simtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var flagFlips = flag.String("simtest.flips", "", "flip one byte of so many of a log, or all (as does -simtest.all)")

const (
	flipLog      = "db/log/main"
	flipManifest = flipLog + "/manifest"
	flipIdentity = "db/database"
	flipSegments = 4 // sealed ones, at least
)

// A sample is a database that was closed, and what it says.
type sample struct {
	fs       *crashfs.FS
	files    map[string][]byte // the log's and the identity, by path
	segments []string          // paths, in order; the last one is active
	table    string
	commits  []seen
	store    []pair // of all spaces, each key with its space in front
	lastFrom int    // where the last commit begins in the active segment
	lastTo   int
}

// flipOptions are those of all databases here.
func flipOptions(t *testing.T, fs vfs.FS) *local.Options {
	return &local.Options{
		FS: fs, Logger: testLogger(t), CacheBytes: 1 << 20, MemTableBytes: 64 << 10,
		Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes},
		Now: func() time.Time { return time.Unix(1700000000, 0) },
	}
}

// newSample makes a database with commits of all kinds in some segments. Two samples differ in nothing but their uuid.
func newSample(t *testing.T) *sample {
	t.Helper()
	s := &sample{fs: crashfs.New()}
	db := flipOpen(t, s.fs)
	rng := rand.New(rand.NewPCG(1, 2))
	write := func(i int) {
		t.Helper()
		b := batchlog.Batch{}
		for range 1 + rng.IntN(4) {
			value := make([]byte, rng.IntN(700))
			for i := range value {
				value[i] = byte(rng.Uint32())
			}
			b.Put(db.Space(worldPaths[1+rng.IntN(3)]...), batchlog.K(rng.IntN(60)), value)
		}
		if i%3 == 0 {
			b.Delete(db.Space("a"), batchlog.K(rng.IntN(60)))
		}
		if i%7 == 0 {
			low := rng.IntN(60)
			b.DeleteRange(db.Space("a", "x"), batchlog.Between(batchlog.K(low), batchlog.K(low+5)))
		}
		if i%5 == 0 {
			b.Token, b.Labels = fmt.Sprint("token ", i), map[string]string{"who": "someone", "n": fmt.Sprint(i)}
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	n := 1
	for ; len(flipSegmentsOf(t, s.fs)) <= flipSegments; n++ {
		write(n)
	}
	for range 8 {
		n++
		write(n)
	}
	flipSealed(t, s.fs)
	flipClose(t, db)
	before := flipFiles(t, s.fs)
	db = flipOpen(t, s.fs)
	write(n + 1)
	flipSealed(t, s.fs) // it may have filled a segment; one that isn't sealed ends in zeros that nobody misses
	flipClose(t, db)
	flipCut(t, s.fs)
	s.files = flipFiles(t, s.fs)
	s.segments, s.table = flipSegmentsOf(t, s.fs), flipTableOf(t, s.fs)
	if len(s.segments) <= flipSegments || len(s.segments) > flipSegments+2 {
		t.Fatalf("%d segments", len(s.segments))
	}
	active := s.segments[len(s.segments)-1]
	old, now := before[active], s.files[active]
	for i := range now {
		if i >= len(old) && now[i] != 0 || i < len(old) && now[i] != old[i] {
			if s.lastFrom == 0 {
				s.lastFrom = i
			}
			s.lastTo = i + 1
		}
	}
	if s.lastFrom == 0 {
		t.Fatal("the last commit is not in the active segment")
	}
	whole := s.look(t, s.clone())
	if whole.err != nil {
		t.Fatalf("the sample itself: %v", whole.err)
	}
	s.commits, s.store = whole.commits, whole.store
	return s
}

func flipOpen(t *testing.T, fs vfs.FS) *local.DB {
	t.Helper()
	db, err := local.Open("db", flipOptions(t, fs))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func flipClose(t *testing.T, db *local.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// flipFooter begins the footer of a sealed segment, which takes flipFooterBytes and is the last of it. On a disk that can't cut a file zeros follow.
const (
	flipFooter      = "BLOGEND\x00"
	flipFooterBytes = 32
)

// flipSealed waits until all segments but the last are sealed.
func flipSealed(t *testing.T, fs vfs.FS) {
	t.Helper()
	for range 1000 {
		names := flipSegmentsOf(t, fs)
		if !slices.ContainsFunc(names[:len(names)-1], func(name string) bool { return !bytes.Contains(flipRead(t, fs, name), []byte(flipFooter)) }) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("segments are not sealed")
}

// flipCut has the files of a closed database end where what is in them does.
func flipCut(t *testing.T, fs vfs.FS) {
	t.Helper()
	names := flipSegmentsOf(t, fs)
	for _, name := range names[:len(names)-1] {
		content := flipRead(t, fs, name)
		flipWrite(t, fs, name, content[:bytes.LastIndex(content, []byte(flipFooter))+flipFooterBytes])
	}
	name := flipTableOf(t, fs)
	flipWrite(t, fs, name, bytes.TrimRight(flipRead(t, fs, name), "\x00"))
}

// flipNames is the files of the log whose names begin and end so, in order.
func flipNames(t *testing.T, fs vfs.FS, prefix, suffix string) (paths []string) {
	t.Helper()
	names, err := fs.List(flipLog)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix) {
			paths = append(paths, flipLog+"/"+name)
		}
	}
	return paths
}

// flipSegmentsOf is the segments, in order.
func flipSegmentsOf(t *testing.T, fs vfs.FS) []string { return flipNames(t, fs, "", ".seg") }

// flipTableOf is the file of the table of segments.
func flipTableOf(t *testing.T, fs vfs.FS) string {
	t.Helper()
	names := flipNames(t, fs, "table-", "")
	if len(names) != 1 {
		t.Fatalf("tables %q", names)
	}
	return names[0]
}

// flipFiles is what the log's files and the identity hold.
func flipFiles(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range append(flipSegmentsOf(t, fs), flipManifest, flipTableOf(t, fs), flipIdentity) {
		files[name] = flipRead(t, fs, name)
	}
	return files
}

func flipRead(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// clone is the sample's files once more.
func (s *sample) clone() *crashfs.FS {
	return s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
}

// flipWrite gives a file another content, all of it durable.
func flipWrite(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(bytes.Clone(content))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A look is what someone sees who opens a database and reads all of it.
type look struct {
	where    string // "open", "tail", "verify", or "" where nobody noticed a thing
	err      error  // that it was noticed by
	head     batchlog.ID
	commits  []seen // up to the error
	store    []pair
	storeErr error
}

// look opens the database in fs and reads all that there is.
func (s *sample) look(t *testing.T, fs vfs.FS) (l look) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := local.Open("db", flipOptions(t, fs))
	if err != nil {
		return look{where: "open", err: err}
	}
	defer func() {
		if err := db.Close(); err != nil && l.err == nil {
			l.where, l.err = "close", err
		}
	}()
	if l.head, err = db.Head(ctx); err != nil {
		return look{where: "open", err: err}
	}
	for c, err := range db.Tail(ctx, batchlog.TailOptions{Until: l.head}) {
		if err != nil {
			l.where, l.err = "tail", err
			break
		}
		seen, err := see(c)
		if err != nil {
			l.where, l.err = "tail", err
			break
		}
		l.commits = append(l.commits, seen)
	}
	for _, at := range worldPaths {
		for e, err := range db.Space(at...).Scan(ctx, batchlog.Range{}) {
			l.storeErr = errors.Join(l.storeErr, err)
			l.store = append(l.store, pair{pathText(at) + " " + string(e.Key), string(e.Value)})
		}
	}
	// Of a clone the store has been compared with the sample's above: its log is left.
	r, err := db.Verify(ctx, local.VerifyOptions{LogOnly: len(s.commits) > 0})
	switch {
	case l.err != nil:
	case err != nil:
		l.where, l.err = "verify", err
	case len(r.Problems) > 0:
		l.where, l.err = "verify", fmt.Errorf("%w: %s", batchlog.ErrCorrupt, r.Problems[0])
	}
	return l
}

// judge says how what was seen is neither the sample nor damage that was noticed: wrong commits, fewer of them, a wrong store,
// or an error of another kind.
func (s *sample) judge(l look) error {
	var version *batchlog.VersionError
	if l.err != nil && !errors.Is(l.err, batchlog.ErrCorrupt) && !errors.As(l.err, &version) {
		return fmt.Errorf("%s: %w, which is not an error of damage", l.where, l.err)
	}
	if l.where == "open" {
		return nil
	}
	if len(l.commits) > len(s.commits) {
		return fmt.Errorf("%d commits, there were %d", len(l.commits), len(s.commits))
	}
	for i, c := range l.commits {
		if want := s.commits[i]; c.id != want.id || c.time != want.time || !maps.Equal(c.labels, want.labels) || !slices.Equal(c.ops, want.ops) {
			return fmt.Errorf("commit %d is %+v, was %+v", want.id, c, want)
		}
	}
	if l.storeErr != nil {
		return fmt.Errorf("the store was not touched, and a scan returns %w", l.storeErr)
	}
	if err := samePairs(l.store, s.store); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if n := len(s.commits); l.err == nil && (len(l.commits) != n || int(l.head) != n) {
		return fmt.Errorf("%d commits, head %d, there were %d, and nobody noticed", len(l.commits), l.head, n)
	}
	return nil
}

// damaged looks at a clone of the sample in which harm has done something, and says who noticed.
func (s *sample) damaged(t *testing.T, what string, harm func(fs vfs.FS)) (where string) {
	t.Helper()
	fs := s.clone()
	harm(fs)
	l := s.look(t, fs)
	if err := s.judge(l); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return l.where
}

// One flipped bit anywhere in log, table, manifest or identity is noticed, or makes no difference to what is read. It never leads to
// other commits, or to fewer.
func TestFlips(t *testing.T) {
	s := newSample(t)
	active := s.segments[len(s.segments)-1]
	names := append(slices.Clone(s.segments), flipManifest, s.table, flipIdentity)
	count := map[string]int{}
	for i, name := range names {
		step := 241 // primes, so that they come to all fields of what is repeated
		switch name {
		case active:
			step = 61
		case flipManifest, s.table:
			step = 29
		case flipIdentity:
			step = 7
		}
		if n, err := strconv.Atoi(*flagFlips); err == nil {
			step = n
		} else if *flagFlips == "all" || *flagAll {
			step = 1
		}
		label := path.Base(name)
		if i < len(s.segments) {
			label = fmt.Sprint("segment ", i+1) // its name differs from run to run
		}
		t.Run(label, func(t *testing.T) {
			content := s.files[name]
			for i, n := 0, 0; i < len(content); i, n = i+step, n+1 {
				mask := []byte{0x01, 0x80}[n%2]
				flipped := bytes.Clone(content)
				flipped[i] ^= mask
				where := s.damaged(t, fmt.Sprintf("byte %d of %d ^ %#02x", i, len(content), mask), func(fs vfs.FS) {
					flipWrite(t, fs, name, flipped)
				})
				count[cmp.Or(where, "nobody: harmless")]++
			}
		})
	}
	t.Logf("noticed by: %v", count)
	if count["open"] == 0 || count["tail"] == 0 {
		t.Errorf("noticed by %v: neither open nor tail may be missing", count)
	}
}

// flipMark is how much of the table's file at its end is a mark of how far the log is durable, at most. Nobody misses that.
const flipMark = 48

// A file that ends too early is noticed.
func TestFlipTruncated(t *testing.T) {
	s := newSample(t)
	for name, content := range s.files {
		for _, size := range []int{0, 1, 20, 100, len(content) / 3, len(content) / 2, len(content) - 1} {
			if size > len(content) {
				continue
			}
			where := s.damaged(t, fmt.Sprintf("%s cut to %d of %d", name, size, len(content)), func(fs vfs.FS) {
				flipWrite(t, fs, name, content[:size])
			})
			needed := len(content)
			switch name {
			case s.segments[len(s.segments)-1]:
				needed = s.lastTo
			case s.table:
				needed -= flipMark
			}
			if where == "" && size < needed {
				t.Errorf("%s cut to %d of %d: nobody noticed", name, size, len(content))
			}
		}
	}
}

// A file that is missing is noticed, and so is one that stands in another's place.
func TestFlipMisplaced(t *testing.T) {
	s, other := newSample(t), newSample(t)
	last := len(s.segments) - 1
	noticed := func(what string, harm func(fs vfs.FS)) {
		t.Helper()
		if s.damaged(t, what, harm) == "" {
			t.Errorf("%s: nobody noticed", what)
		}
	}
	for name := range s.files {
		noticed(name+" is missing", func(fs vfs.FS) {
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, pair := range [][2]int{{0, 1}, {1, 2}, {0, last}} {
		a, b := s.segments[pair[0]], s.segments[pair[1]]
		noticed(fmt.Sprintf("segments %d and %d are swapped", pair[0], pair[1]), func(fs vfs.FS) {
			flipWrite(t, fs, a, s.files[b])
			flipWrite(t, fs, b, s.files[a])
		})
	}
	for i := range s.segments {
		noticed(fmt.Sprintf("segment %d is of another database", i), func(fs vfs.FS) {
			flipWrite(t, fs, s.segments[i], other.files[other.segments[i]])
		})
	}
	noticed("the manifest is of another database", func(fs vfs.FS) {
		flipWrite(t, fs, flipManifest, other.files[flipManifest])
	})
	noticed("the table is of another database", func(fs vfs.FS) {
		flipWrite(t, fs, s.table, other.files[other.table])
	})
	noticed("the identity is of another database", func(fs vfs.FS) {
		flipWrite(t, fs, flipIdentity, other.files[flipIdentity])
	})
}

// Zeros over the last commit of a log that was closed are noticed when it is opened: the table knows how far it was durable.
func TestFlipZeros(t *testing.T) {
	s := newSample(t)
	active := s.segments[len(s.segments)-1]
	for _, from := range []int{s.lastFrom, s.lastFrom + 8, (s.lastFrom + s.lastTo) / 2, s.lastTo - 1} {
		zeroed := bytes.Clone(s.files[active])
		clear(zeroed[from:s.lastTo])
		where := s.damaged(t, fmt.Sprintf("zeros from %d to %d", from, s.lastTo), func(fs vfs.FS) { flipWrite(t, fs, active, zeroed) })
		if where != "open" {
			t.Errorf("zeros from %d to %d: noticed by %q, want open", from, s.lastTo, where)
		}
	}
}
