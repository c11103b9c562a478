package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// testPlaces are directories that are where their names say, in states that a test sets.
type testPlaces struct {
	mu     sync.Mutex
	states map[string]string         // those that are not ready
	begun  []map[string]string       // what Begin was told
	begin  error                     // what it answers
	asked  map[string]map[string]int // Change and Keep, by directory
	moved  map[string]string         // where directories are, if elsewhere
}

func newPlaces() *testPlaces {
	return &testPlaces{states: map[string]string{}, asked: map[string]map[string]int{}, moved: map[string]string{}}
}

func (p *testPlaces) set(dir, state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states[dir] = state
}

func (p *testPlaces) ask(what, dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked[dir] == nil {
		p.asked[dir] = map[string]int{}
	}
	p.asked[dir][what]++
	if state := p.states[dir]; state != "" {
		return &batchlog.DirError{Dir: dir, State: state, Err: errDisk}
	}
	return nil
}

func (p *testPlaces) Path(dir string) string {
	if to := p.moved[dir]; to != "" {
		return to
	}
	return dir
}

func (p *testPlaces) Begin(files map[string]string) error {
	p.begun = append(p.begun, files)
	return p.begin
}

func (p *testPlaces) Change(dir string) error  { return p.ask("change", dir) }
func (p *testPlaces) Keep(dir string) error    { return p.ask("keep", dir) }
func (p *testPlaces) Trouble(dir string) error { return p.ask("trouble", dir) }

// placed is a log with segments in some directories.
func placed(t *testing.T) (*world, *testPlaces, *watch) {
	t.Helper()
	fs, p := &watch{FS: vfs.NewMem()}, newPlaces()
	o := options(fs, batchlog.MinSegmentBytes)
	o.Places, o.Settings.Dirs, o.Settings.Warm = p, []string{"/one", "/two"}, []string{"/warm", "/warmer"}
	w := begin(t, o)
	w.fill(6, 3000)
	w.sealed()
	if n, err := w.log.Warm(t.Context(), w.segs()[2].last); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	w.swept()
	return w, p, fs
}

// A log that its places refuse is not opened, and nothing is done in any of them before they have said so.
func TestPlacesRefuse(t *testing.T) {
	w, p, fs := placed(t)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	p.begin = errors.New("belongs to another one")
	fs.done()
	touched := ""
	fs.on(func(op, name string, _ int64) error {
		if strings.HasSuffix(name, segmentSuffix) || strings.HasPrefix(name, preparedPrefix) || op == "remove" || op == "rename" {
			touched = op + " " + name
		}
		return nil
	})
	if _, err := Open(w.opts, 0); !errors.Is(err, p.begin) {
		t.Errorf("opened: %v", err)
	}
	fs.on(nil)
	if touched != "" {
		t.Errorf("%s", touched)
	}
	told := p.begun[len(p.begun)-1]
	if len(told) != 4 || told["/warm"] != w.segs()[2].name() && told["/warm"] != w.segs()[1].name() {
		t.Errorf("begins with %q", told)
	}
	p.begin = nil
	w.open()
	w.verify()
	w.wantRead(batchlog.First(), w.all)
}

// New segments and moves go past a directory that can't be changed; what is there is told of with the directory and the file.
func TestPlacesAway(t *testing.T) {
	w, p, fs := placed(t)
	p.set("/one", batchlog.DirMissing)
	p.set("/warm", batchlog.DirMissing)
	old := len(w.segs())
	w.fill(old+4, 3000)
	w.sealed()
	for _, s := range w.segs()[old+1:] { // but for the one that was prepared before
		if s.dir != "/two" {
			t.Errorf("segment in %s", s.dir)
		}
	}
	if n, err := w.log.Warm(t.Context(), w.segs()[old].last); n == 0 || err != nil {
		t.Errorf("%d moved, %v", n, err)
	}
	for _, s := range w.segs()[3:old] {
		if s.warm && s.dir != "/warmer" {
			t.Errorf("segment has moved to %s", s.dir)
		}
	}
	p.set("/warmer", batchlog.DirUnmarked)
	p.set("/two", batchlog.DirMissing)
	if _, err := w.log.Warm(t.Context(), w.log.Head()); !strings.Contains(fmt.Sprint(err), "/warmer is unmarked") {
		t.Errorf("moved: %v", err)
	}
	var at *batchlog.DirError
	fill := func() (err error) {
		for range 20 {
			if err = w.tryWrite(put(3000, "a")); err != nil {
				return err
			}
		}
		return nil
	}
	if err := fill(); !errors.As(err, &at) || w.log.Failed() != nil {
		t.Errorf("no directory is left: %v", err)
	}
	p.set("/two", "")
	eventually(t, "segments are made again", func() bool { return fill() == nil })
	w.reopen() // so that nothing is read from memory
	s := w.segs()[0]
	if err := fs.Rename(s.dir, "/away"); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, w.log, batchlog.LogOptions{From: batchlog.First(), Until: 1}); !errors.As(err, &at) || at.File != filepath.Join(s.dir, s.name()) || at.State != p.states[s.dir] {
		t.Errorf("read: %v", err)
	}
	p.set(s.dir, "")
	if _, err := read(t, w.log, batchlog.LogOptions{From: batchlog.First(), Until: 1}); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("read of what is missing where all is well: %v", err)
	}
}

// Files in a directory that is not there stay to be removed; those in one that is another's are forgotten, and never removed.
func TestPlacesRemove(t *testing.T) {
	for _, state := range []string{batchlog.DirMissing, batchlog.DirUnmarked, batchlog.DirUnreadable, batchlog.DirTaken, batchlog.DirLeft} {
		t.Run(state, func(t *testing.T) {
			w, p, fs := placed(t)
			for _, dir := range []string{"/one", "/two", "/warm", "/warmer"} {
				p.set(dir, state)
			}
			dropped := w.segs()[:4]
			if n, err := w.log.Trim(dropped[3].last); n != 4 || err != nil {
				t.Fatal(n, err)
			}
			if err := w.log.Swept(t.Context()); err != nil {
				t.Fatal(err)
			}
			there := func() (n int) {
				for _, s := range dropped {
					if _, err := fs.Stat(filepath.Join(s.dir, s.name())); err == nil {
						n++
					}
				}
				return n
			}
			limbo := w.log.table.Load().limbo.len()
			if forgotten := state == batchlog.DirTaken || state == batchlog.DirLeft; there() != 4 || (limbo == 0) != forgotten {
				t.Errorf("%d files, %d in limbo", there(), limbo)
			}
			for _, dir := range []string{"/one", "/two", "/warm", "/warmer"} {
				p.set(dir, "")
			}
			w.reopen()
			w.swept()
			if want := map[bool]int{true: 4}[limbo == 0]; there() != want {
				t.Errorf("%d files are left, want %d", there(), want)
			}
			w.verify()
		})
	}
}

// What a table that is put back has still to remove can be forgotten before the log is opened, without the log changing otherwise.
func TestForget(t *testing.T) {
	w, p, fs := placed(t)
	if err := Forget(w.opts, func(string) bool { return true }); err != nil { // there is nothing
		t.Fatal(err)
	}
	p.set("/warm", batchlog.DirMissing)
	p.set("/two", batchlog.DirMissing)
	dropped := w.segs()[:4]
	if n, err := w.log.Trim(dropped[3].last); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if err := w.log.Swept(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.marked()
	want := w.log.table.Load().mark
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Forget(w.opts, func(dir string) bool { return dir == "/warm" }); err != nil {
		t.Fatal(err)
	}
	p.states = map[string]string{}
	w.open()
	if got := w.log.table.Load().mark; got.first != want.first || got.end < want.end {
		t.Errorf("durable up to %+v, was %+v", got, want)
	}
	w.swept()
	for _, s := range dropped {
		_, err := fs.Stat(filepath.Join(s.dir, s.name()))
		if there := err == nil; there != (s.dir == "/warm") {
			t.Errorf("%s in %s is there: %t", s.name(), s.dir, there)
		}
	}
	w.verify()
	o := w.opts
	o.Dir = "none"
	if err := Forget(o, func(string) bool { return true }); err != nil {
		t.Errorf("no log: %v", err)
	}
	dirs, err := Directories(w.opts)
	if err != nil || dirs["/one"] == "" && dirs["/two"] == "" {
		t.Errorf("directories %q, %v", dirs, err)
	}
	if dir, err := ActiveDirectory(w.opts); err != nil || dir != w.segs()[len(w.segs())-1].dir {
		t.Errorf("active in %q, %v", dir, err)
	}
}

// A move does not replace a file that the table does not know, unless that is the same.
func TestMoveReplaces(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		moves  bool
	}{
		{"the same", func(b []byte) []byte { return b }, true},
		{"another", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, false},
		{"shorter", func(b []byte) []byte { return b[:len(b)/2] }, false},
		{"empty", func([]byte) []byte { return nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _, fs := placed(t)
			s := w.segs()[3]
			content := contentOf(t, fs, filepath.Join(s.dir, s.name()))[:s.size]
			there := c.change(bytes.Clone(content))
			for _, dir := range []string{"/warm", "/warmer"} {
				if err := disk.WriteFile(fs, filepath.Join(dir, s.name()), bytes.Clone(there)); err != nil {
					t.Fatal(err)
				}
			}
			n, err := w.log.Warm(t.Context(), s.last)
			if moved := n == 1; moved != c.moves || (err == nil) != c.moves {
				t.Errorf("%d moved, %v", n, err)
			}
			w.swept()
			left := 0
			for _, dir := range []string{"/warm", "/warmer"} {
				if bytes.Equal(contentOf(t, fs, filepath.Join(dir, s.name())), there) {
					left++
				}
			}
			if left != 2 {
				t.Errorf("%d of the files are as they were", left)
			}
			w.verify()
			w.wantRead(batchlog.First(), w.all)
		})
	}
}

// A commit of another epoch begins a segment; one with commits of an epoch before may be beside the log without being of it.
func TestEpochs(t *testing.T) {
	for _, empty := range []bool{false, true} {
		w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
		if !empty {
			w.write(put(10, "a"))
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
		stranger := func(epoch batchlog.Epoch) {
			o := options(w.opts.FS, batchlog.MinSegmentBytes)
			o.Dir, o.Epoch = fmt.Sprint("other", epoch), epoch
			x := &world{t: t, opts: o, time: w.time, step: 1}
			if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			x.open()
			x.write(put(10, "b"))
			name := x.segs()[0].name()
			if err := x.log.Close(); err != nil {
				t.Fatal(err)
			}
			copyFile(t, o.FS, filepath.Join(o.Dir, name), filepath.Join(dir, segmentName(1000, segTag{byte(epoch)})))
		}
		w.opts.Epoch = 2
		stranger(1)
		w.open()
		w.write(put(10, "a"))
		w.reopen()
		w.write(put(10, "a"))
		var epochs []batchlog.Epoch
		for _, s := range w.segs() {
			h, err := segment.ParseHeader(contentOf(t, w.opts.FS, w.path(s))[:segment.HeaderSize], s.name())
			if err != nil {
				t.Fatal(err)
			}
			epochs = append(epochs, h.Epoch)
		}
		if want := map[bool]string{false: "[1 2]", true: "[2]"}[empty]; fmt.Sprint(epochs) != want {
			t.Errorf("epochs %d, want %s", epochs, want)
		}
		w.verify()
		w.wantRead(batchlog.First(), w.all)
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
		stranger(2)
		if _, err := Open(w.opts, 0); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("with a segment of the same epoch that the table does not name: %v", err)
		}
	}
}
