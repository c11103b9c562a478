package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
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
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A slowFS holds up whoever makes a directory whose name contains "slow", and counts what is written to the database's directory afterwards.
type slowFS struct {
	*crashfs.FS
	reached  chan struct{} // closed when somebody is held up
	once     sync.Once
	goOn     chan struct{}
	closed   atomic.Bool // the database was
	afterEnd atomic.Int64
}

func (fs *slowFS) MkdirAll(dir string, perm os.FileMode) error {
	if strings.Contains(dir, "slow") {
		fs.once.Do(func() { close(fs.reached) })
		<-fs.goOn
	}
	return fs.FS.MkdirAll(dir, perm)
}

func (fs *slowFS) Rename(from, to string) error {
	if fs.closed.Load() && strings.HasPrefix(filepath.Clean(to), "db") {
		fs.afterEnd.Add(1)
	}
	return fs.FS.Rename(from, to)
}

// A Configure that a slow directory holds up writes nothing once the database is closed: who opens it meanwhile would find old state over new.
func TestConfigureClose(t *testing.T) {
	fs := &slowFS{FS: crashfs.New(), reached: make(chan struct{}), goOn: make(chan struct{})}
	o := Options{FS: fs, Log: batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes}}
	write := func(db *DB, n int) (last batchlog.ID) {
		t.Helper()
		for i := range n {
			id, err := db.Space("s").Put(t.Context(), batchlog.K(i), make([]byte, 700))
			if err != nil {
				t.Fatal(err)
			}
			last = id
		}
		return last
	}
	db := chainDB(t, o)
	write(db, 50)
	configured := make(chan error, 1)
	go func() {
		c := o.Log
		c.Dirs = []string{"/slow"}
		configured <- db.Configure(t.Context(), c)
	}()
	<-fs.reached
	closed := make(chan error, 1)
	go func() {
		closed <- db.Close()
		fs.closed.Store(true)
	}()
	select { // the time decides only how surely a fault is found
	case err := <-closed:
		t.Errorf("closed while settings are changed: %v", err)
		again := chainDB(t, o)
		want := write(again, 100)
		close(fs.goOn)
		t.Logf("configured: %v", <-configured)
		after := chainDB(t, Options{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
		if got := head(t, after); got != want {
			t.Errorf("after a crash head is %d, was %d", got, want)
		}
		return
	case <-time.After(100 * time.Millisecond):
	}
	close(fs.goOn)
	err := <-configured
	if closeErr := <-closed; closeErr != nil {
		t.Fatal(closeErr)
	}
	if n := fs.afterEnd.Load(); n > 0 {
		t.Errorf("%d files replaced after Close", n)
	}
	again := chainDB(t, o)
	if got := len(again.engine.config().Dirs); (got == 1) != (err == nil) {
		t.Errorf("configured: %v, %d directories", err, got)
	}
}

// counting is fs, which calls each before each operation on the settings, on directories and on the log, and fails it as that says.
func counting(fs vfs.FS, each func() error) vfs.FS {
	var mu sync.Mutex
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.Contains(op.Path, "store") || op.Kind.ReadOrWrite() == errorfs.OpIsRead && op.Kind != errorfs.OpOpenDir {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		return each()
	}))
}

// afterCrash is what a loss of power leaves: all that was not synced, or none of it.
func afterCrash(fs *crashfs.FS, keptPercent int) *crashfs.FS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keptPercent, RNG: rand.New(rand.NewPCG(1, uint64(keptPercent)))})
}

var oldConfig = batchlog.LogConfig{
	Name: "main", SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Minute, Dirs: []string{"/hot", "/hotter"}, Warm: []string{"/warm", "/warmer"},
	WarmTTL: 1000000 * time.Hour, BlobBytes: 1024, Undo: true,
}

// A database of before the settings had a file is given one when it is opened, with the settings that it had, wherever the power fails.
func TestSettingsOfBefore(t *testing.T) {
	check := func(t *testing.T, fs vfs.FS) {
		t.Helper()
		for range 2 {
			db := chainDB(t, Options{FS: fs, Now: version1Now})
			st, err := db.Status(t.Context())
			if err != nil || !reflect.DeepEqual(st.Logs[0].Config, oldConfig) || st.Logs[0].Name != "main" || st.Head != version1Commits {
				t.Fatalf("%+v, %v", st, err)
			}
			if n := len(states(t, db)) - 1; n != version1Commits {
				t.Errorf("%d commits", n)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var clones []*crashfs.FS
	fs := version1(t)
	check(t, counting(fs, func() error {
		clones = append(clones, afterCrash(fs, 0), afterCrash(fs, 100))
		return nil
	}))
	if len(clones) < 20 {
		t.Errorf("%d moments", len(clones)/2)
	}
	for i, clone := range clones {
		t.Run(fmt.Sprint("operation ", i/2, ", kept ", i%2*100, " %"), func(t *testing.T) { check(t, clone) })
	}
	verified(t, chainDB(t, Options{FS: fs, Now: version1Now}))
}

// At whatever operation Configure fails or the power does: settings are durable when it returns, and if it fails all is as before, unless it says that this is uncertain.
func TestConfigureFails(t *testing.T) {
	old := batchlog.LogConfig{Name: "main", SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour}
	next := batchlog.LogConfig{Name: "main", SegmentBytes: batchlog.MinSegmentBytes, HotTTL: 2 * time.Hour, Warm: []string{"/a/b"}, Undo: true}
	found := func(fs *crashfs.FS) batchlog.LogConfig {
		t.Helper()
		db := chainDB(t, Options{FS: fs})
		c := db.engine.config()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	is := func(c batchlog.LogConfig, among ...batchlog.LogConfig) bool {
		return slices.ContainsFunc(among, func(a batchlog.LogConfig) bool { return reflect.DeepEqual(a, c) })
	}
	for _, lasting := range []bool{false, true} { // whether all operations after the first that fails do so
		uncertain := 0
		for at := 1; ; at++ {
			n := 0
			fail := false
			fs := crashfs.New()
			db := chainDB(t, Options{FS: counting(fs, func() error {
				if !fail {
					return nil
				}
				if n++; n == at || lasting && n > at {
					return syscall.EIO
				}
				return nil
			}), Log: old})
			fail = true
			err := db.Configure(t.Context(), next)
			fail = false
			want := []batchlog.LogConfig{next}
			switch {
			case errors.Is(err, batchlog.ErrUncertain):
				want = append(want, old)
				uncertain++
			case err != nil:
				want = []batchlog.LogConfig{old}
			}
			if got := db.engine.config(); err != nil && !is(got, old) || err == nil && !is(got, next) {
				t.Errorf("operation %d (%v): settings are %+v", at, err, got)
			}
			for _, kept := range []int{0, 100} {
				if got := found(afterCrash(fs, kept)); !is(got, want...) {
					t.Errorf("operation %d (%v): after a crash that keeps %d %% settings are %+v", at, err, kept, got)
				}
			}
			if err := db.Configure(t.Context(), old); err != nil { // settles it, although nothing changes
				t.Fatal(err)
			}
			for _, kept := range []int{0, 100} {
				if got := found(afterCrash(fs, kept)); !is(got, old) {
					t.Errorf("operation %d (%v): after it was set back and a crash that keeps %d %% settings are %+v", at, err, kept, got)
				}
			}
			if err == nil {
				break
			}
		}
		if (uncertain > 0) != lasting {
			t.Errorf("lasting %t: %d times uncertain", lasting, uncertain)
		}
	}
}

// Settings that are damaged or missing are told of as that; none are made up.
func TestSettingsDamaged(t *testing.T) {
	fs := crashfs.New()
	db := chainDB(t, Options{FS: fs})
	if _, err := db.Root().Put(t.Context(), batchlog.K(1), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := disk.ReadFile(fs, "db/settings")
	if err != nil {
		t.Fatal(err)
	}
	refused := func(content []byte, want error) {
		t.Helper()
		if err := disk.WriteFile(fs, "db/settings", content); err != nil {
			t.Fatal(err)
		}
		db, err := Open("db", &Options{FS: fs})
		if err == nil {
			_ = db.Close()
		}
		if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), "db/settings") {
			t.Errorf("%q: %v", content, err)
		}
	}
	for i := bytes.IndexByte(good, '\n'); i < len(good); i++ {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		refused(flipped, batchlog.ErrCorrupt)
	}
	refused(nil, batchlog.ErrCorrupt)
	refused(disk.AppendDocument(nil, settingsKind, settingsNewest, []byte("{}")), batchlog.ErrCorrupt)
	refused(disk.AppendDocument(nil, settingsKind, settingsNewest, []byte("{")), batchlog.ErrCorrupt)
	refused(disk.AppendDocument(nil, settingsKind, settingsNewest, []byte(`{"logs":[{"name":"other"}]}`)), batchlog.ErrCorrupt)
	refused(disk.AppendDocument(nil, settingsKind, settingsNewest+1, []byte("{}")), batchlog.ErrUnsupported)
	if err := fs.Remove("db/settings"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("db", &Options{FS: fs}); !errors.Is(err, batchlog.ErrCorrupt) || !strings.Contains(err.Error(), "db/settings") {
		t.Errorf("missing: %v", err)
	}
}
