package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const manifestPath = dir + "/" + manifestName

// The table comes back as it was.
func TestManifest(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &Log{opts: options(fs, 0)}
	if _, err := l.readManifest(); !disk.NotExist(err) {
		t.Fatalf("without a manifest: %v", err)
	}
	want := manifest{
		Config:  &batchlog.LogConfig{Name: "main", HotTTL: time.Hour, Dirs: []string{"a", "/b"}, SegmentBytes: 1 << 20},
		Trimmed: 12345,
		Segments: []manifestSegment{
			{Name: "1.seg", Dir: "a", State: "sealed", First: 1, Last: 9, End: 1 << 40, Size: 1<<40 + 1, Oldest: 1, Newest: 2, Hash: strings.Repeat("0f", 32)},
			{Name: "2.seg", State: "full", First: 10, Last: 10, End: 5000, Size: 6000, Broken: "it's \"broken\""},
			{Name: "3.seg", State: "active", First: 11, End: 4096, Size: 1 << 20},
		},
	}
	if uncertain, err := l.replaceManifest(want); err != nil {
		t.Fatal(uncertain, err)
	}
	got, err := l.readManifest()
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Fatalf("%+v, %v, want %+v", got, err, want)
	}
	edit(t, fs, manifestPath, func(b []byte) []byte {
		line, body, _ := bytes.Cut(b, []byte("\n"))
		sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
		if want := fmt.Sprintf("batchlog manifest 1 %08x", sum); string(line) != want {
			t.Errorf("first line %q, want %q", line, want)
		}
		return b
	})
}

// Every change of one byte is found, but for those that leave the numbers of the first line what they are.
func TestManifestFlips(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	var good []byte
	edit(t, w.opts.FS, manifestPath, func(b []byte) []byte {
		good = b
		return b
	})
	l := &Log{opts: w.opts}
	want, err := l.readManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, x := range []byte{1, 0x20, 0x80} {
			edit(t, w.opts.FS, manifestPath, func([]byte) []byte {
				b := bytes.Clone(good)
				b[i] ^= x
				return b
			})
			got, err := l.readManifest()
			if err == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("byte %d ^ %#x: read as %+v", i, x, got)
			}
			if i >= bytes.IndexByte(good, '\n') && err == nil {
				t.Fatalf("byte %d ^ %#x of the table: accepted", i, x)
			}
			if err != nil && !errors.Is(err, batchlog.ErrCorrupt) && !errors.Is(err, batchlog.ErrUnsupported) {
				t.Fatalf("byte %d ^ %#x: %v", i, x, err)
			}
		}
	}
	for n := range good {
		edit(t, w.opts.FS, manifestPath, func([]byte) []byte { return good[:n] })
		if _, err := l.readManifest(); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(good), err)
		}
	}
}

// A table that makes no sense is refused although its sum holds; a newer version is refused by name.
func TestManifestRefused(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	replace := func(version int, change func(body string) string) {
		t.Helper()
		edit(t, w.opts.FS, manifestPath, func(b []byte) []byte {
			_, body, _ := bytes.Cut(b, []byte("\n"))
			changed := change(string(body))
			if version == manifestVersion && changed == string(body) {
				t.Error("nothing was changed")
			}
			return disk.AppendDocument(nil, manifestName, uint32(version), []byte(changed))
		})
	}
	var good []byte
	edit(t, w.opts.FS, manifestPath, func(b []byte) []byte {
		good = b
		return b
	})
	swap := func(old, changed string) func(string) string {
		return func(body string) string { return strings.Replace(body, old, changed, 1) }
	}
	for name, change := range map[string]func(string) string{
		"no JSON":             func(string) string { return "{" },
		"no segments":         func(string) string { return "{}" },
		"a hole":              swap(`"last": `, `"last": 1`),
		"two active":          swap(`"state": "sealed"`, `"state": "active"`),
		"none active":         swap(`"state": "active"`, `"state": "sealed"`),
		"an unknown state":    swap(`"state": "sealed"`, `"state": "warm"`),
		"an unknown last one": swap(`"state": "active"`, `"state": "warm"`),
		"a hash of no hex":    swap(`"hash": "`, `"hash": "x`),
		"a hash too long":     swap(`"hash": "`, `"hash": "0000`),
		"a hash too short": func(body string) string {
			return body[:strings.Index(body, `"hash": "`)+9] + body[strings.Index(body, `"hash": "`)+11:]
		},
	} {
		replace(manifestVersion, change)
		if _, err := Open(w.opts, 0); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		edit(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	}
	replace(0, func(body string) string { return body })
	if _, err := Open(w.opts, 0); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
	edit(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	replace(manifestVersion+1, func(body string) string { return body })
	_, err := Open(w.opts, 0)
	var newer *batchlog.VersionError
	if !errors.As(err, &newer) || newer.Version != manifestVersion+1 || newer.Known != manifestVersion || !strings.HasSuffix(newer.What, manifestName) {
		t.Errorf("newer version: %v", err)
	}
	edit(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	w.open()
	w.wantRead(batchlog.First(), w.all)
}

// Whatever bytes the manifest has, opening says what is wrong with them or does not mind.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"segments":[{"name":"1.seg","state":"active","first":1,"end":4096,"size":16384}]}`))
	f.Add([]byte(`{"config":{"Name":"main"},"segments":[{"state":"sealed","first":1,"last":1,"hash":"00"},{"state":"active","first":2}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := disk.AppendDocument(nil, manifestName, manifestVersion, body)
		if err := disk.WriteFile(fs, manifestPath, text); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(options(fs, 0), 0); err == nil {
			l.Close()
			t.Errorf("opened without a segment: %s", body)
		}
	})
}

// What a crash left behind is removed, what may be somebody's is not.
func TestSweep(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(4, 3000)
	w.sealed()
	if _, err := w.log.Trim(w.segs()[1].last); err != nil {
		t.Fatal(err)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	kept := []string{
		"notes.txt",
		segmentName(w.log.Head()+5, segment.UUID{1}), // newer than the log: maybe the manifest is from an older copy
	}
	gone := []string{preparedPrefix + "00000000", preparedPrefix, segmentName(1, segment.UUID{2})}
	for _, name := range append(slices.Clone(kept), gone...) {
		if err := disk.WriteFile(w.opts.FS, filepath.Join(dir, name), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	files := w.files()
	for _, name := range kept {
		if !slices.Contains(files, name) {
			t.Errorf("%s is gone", name)
		}
	}
	for _, name := range gone {
		if slices.Contains(files, name) {
			t.Errorf("%s is there", name)
		}
	}
	w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
}

// The last group may have been read from memory that no disk has: it is written and synced once more before the log goes on.
func TestConfirm(t *testing.T) {
	mem := crashfs.New()
	if err := mem.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := disk.SyncDir(mem, "/"); err != nil {
		t.Fatal(err)
	}
	fs := &watch{FS: mem}
	w := begin(t, options(fs, 64<<10))
	w.write(put(10, "a"))
	fs.on(failOn("sync", segmentSuffix, errDisk))
	if err := w.tryWrite(put(3000, "in memory only")); !errors.Is(err, batchlog.ErrUncertain) {
		t.Fatal(err)
	}
	fs.on(nil)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	if w.log.Head() != 2 {
		t.Fatalf("head %d", w.log.Head())
	}
	o := w.opts
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{})
	l, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Head() != 2 {
		t.Errorf("followers saw commit 2, and after a power cut the log ends with %d", l.Head())
	}
	// A failure of that is the end of it.
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"write", "sync"} {
		fs.on(failOn(op, segmentSuffix, errDisk))
		if _, err := Open(w.opts, 0); !errors.Is(err, errDisk) {
			t.Errorf("failed %s of the last group: %v", op, err)
		}
		fs.on(nil)
	}
}

// A power cut loses what no sync has kept, in any mixture: what was acknowledged is there, the rest whole or not at all, and the
// log goes on behind it.
func TestPowerCuts(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 5))
		mem := crashfs.New()
		if err := errors.Join(mem.MkdirAll(dir, 0o755), disk.SyncDir(mem, "/")); err != nil {
			t.Fatal(err)
		}
		w := begin(t, options(mem, batchlog.MinSegmentBytes))
		for range 3 {
			acknowledged, under := w.cutPower(r)
			head := int(w.log.Head())
			if head < acknowledged || head > len(w.all)+len(under) {
				t.Fatalf("seed %d: head %d, acknowledged %d, %d under way", seed, head, acknowledged, len(under))
			}
			if head == 0 {
				w.all = nil
				continue
			}
			got, err := read(t, w.log, batchlog.LogOptions{Until: w.log.Head()})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for i := range got {
				want := append(w.all, under...)[i]
				want.ID, want.Time = batchlog.ID(i+1), got[i].Time
				if !same(&got[i], &want) {
					t.Fatalf("seed %d: commit %d is another one than was written", seed, i+1)
				}
			}
			w.all = got
		}
		w.fill(w.log.Status().Segments+2, 2000)
		w.sealed()
		w.verify()
		w.wantRead(batchlog.First(), w.all)
	}
}

// cutPower writes until the power goes at a random operation, and opens what the disk has then. It returns how many commits
// had been acknowledged, and those of the last group, which was under way or came right after.
func (w *world) cutPower(r *rand.Rand) (acknowledged int, under []batchlog.Record) {
	w.t.Helper()
	mem := w.opts.FS.(*crashfs.FS)
	fs := &watch{FS: mem}
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.opts.FS = fs
	w.open()
	var done atomic.Int64
	var crashed atomic.Pointer[crashfs.FS]
	done.Store(int64(len(w.all)))
	var mu sync.Mutex // the hook's
	crash := r.IntN(150)
	clone := vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(r.Uint64(), 0))}
	fs.on(func(op, _ string, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		if crashed.Load() != nil {
			return errDisk
		}
		if crash--; op == "read" || crash >= 0 {
			return nil
		}
		acknowledged = int(done.Load())
		crashed.Store(mem.CrashClone(clone))
		return errDisk
	})
	for crashed.Load() == nil {
		under = nil
		for range 1 + r.IntN(3) {
			under = append(under, put(r.IntN(5000), "a", r.IntN(1000)))
		}
		before := len(w.all)
		if err := w.tryWrite(under...); err != nil {
			if crashed.Load() == nil {
				w.t.Fatal(err)
			}
			under = under[len(w.all)-before:]
		} else {
			under = nil
		}
		done.Store(int64(len(w.all)))
	}
	w.log.Close()
	fs.on(nil)
	mu.Lock()
	defer mu.Unlock()
	w.opts.FS = crashed.Load()
	w.open()
	w.time = max(w.time, w.log.LastTime())
	return acknowledged, under
}

// A segment of the table that isn't there, or isn't the one, is damage; nothing is made in its place.
func TestOpenDamaged(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.write(put(10, "a"))
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	segs := w.segs()
	last := segs[2]
	for _, c := range []struct {
		name   string
		change func(fs vfs.FS)
		is     error
	}{
		{"missing", func(fs vfs.FS) { remove(t, fs, w.path(last)) }, batchlog.ErrCorrupt},
		{"empty", func(fs vfs.FS) { edit(t, fs, w.path(last), func([]byte) []byte { return nil }) }, batchlog.ErrCorrupt},
		{"another one", func(fs vfs.FS) { copyFile(t, fs, w.path(segs[1]), w.path(last)) }, batchlog.ErrCorrupt},
		{"of another database", func(fs vfs.FS) {
			edit(t, fs, w.path(last), func(b []byte) []byte {
				h := last.header
				h.Database[3]++
				return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
			})
		}, batchlog.ErrCorrupt},
		{"of a newer version", func(fs vfs.FS) {
			edit(t, fs, w.path(last), func(b []byte) []byte {
				h := last.header
				h.Version++
				return append(segment.AppendHeader(nil, h), b[segment.HeaderSize:]...)
			})
		}, batchlog.ErrUnsupported},
		{"with a damaged group that was durable", func(fs vfs.FS) {
			edit(t, fs, w.path(last), func(b []byte) []byte {
				b[segment.HeaderSize+segment.GroupHead+5]++
				return b
			})
		}, batchlog.ErrCorrupt},
	} {
		o := w.opts
		o.FS = copyFS(t, w.opts.FS)
		c.change(o.FS)
		before, err := o.FS.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := Open(o, 0)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), last.name) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		after, err := o.FS.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(before)
		slices.Sort(after)
		if !slices.Equal(before, after) {
			t.Errorf("%s: files were %q, are %q", c.name, before, after)
		}
	}
}

// Without its manifest a log that has commits is damaged, not new.
func TestOpenWithoutManifest(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, w.opts.FS, manifestPath)
	w.open() // there was nothing in it
	w.write(put(10, "a"))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if l, err := Open(func() Options {
			o := w.opts
			o.FS = copyFS(t, w.opts.FS)
			remove(t, o.FS, manifestPath)
			return o
		}(), 0); err == nil {
			t.Errorf("a log with a commit is opened as new, its head is %d", l.Head())
			l.Close()
		} else {
			_ = damage(t, err, manifestName)
		}
	}
}

func remove(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, fs vfs.FS, from, to string) {
	t.Helper()
	f, err := fs.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), disk.WriteFile(fs, to, b)); err != nil {
		t.Fatal(err)
	}
}
