package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A smallDisk is a file system with so many bytes, in blocks as files have them, and one block for each name.
type smallDisk struct {
	*vfs.MemFS

	mu    sync.Mutex
	total int64
	used  int64
	files map[string]*smallNode
}

type smallNode struct {
	size, reserved int64
	gone           bool
}

const block = 4096

func newSmallDisk(total int64) *smallDisk {
	return &smallDisk{MemFS: vfs.NewCrashableMem(), total: total, files: map[string]*smallNode{}}
}

// clone is what a process that was killed leaves behind. What it still does comes to nothing.
func (d *smallDisk) clone() *smallDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &smallDisk{MemFS: d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}), total: d.total, used: d.used, files: map[string]*smallNode{}}
	for name, n := range d.files {
		c.files[name] = &smallNode{size: n.size, reserved: n.reserved}
	}
	return c
}

func (d *smallDisk) free() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total - d.used
}

func (n *smallNode) blocks() int64 { return (max(n.size, n.reserved)+block-1)/block + 1 }

// node is the file of that name, which takes a block if it is new.
func (d *smallDisk) node(name string, truncate bool) (*smallNode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = filepath.Clean(name)
	n := d.files[name]
	if n == nil {
		if d.used+block > d.total {
			return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
		}
		n = &smallNode{}
		d.used += block
		d.files[name] = n
	}
	if truncate {
		d.used -= (n.blocks() - 1) * block
		n.size, n.reserved = 0, 0
	}
	return n, nil
}

// resize changes a file, if there is space.
func (d *smallDisk) resize(n *smallNode, size, reserved int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := smallNode{size: max(n.size, size), reserved: max(n.reserved, reserved)}
	more := (next.blocks() - n.blocks()) * block
	if n.gone {
		more = 0
	}
	if more > 0 && d.used+more > d.total {
		return &os.PathError{Op: "write", Err: syscall.ENOSPC}
	}
	d.used += more
	n.size, n.reserved = next.size, next.reserved
	return nil
}

func (d *smallDisk) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = filepath.Clean(name)
	for file, n := range d.files {
		if file == name || len(file) > len(name) && file[:len(name)+1] == name+"/" {
			d.used -= n.blocks() * block
			n.gone = true
			delete(d.files, file)
		}
	}
}

func (d *smallDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, true, func() (vfs.File, error) { return d.MemFS.Create(name, c) })
}

func (d *smallDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.open(name, false, func() (vfs.File, error) { return d.MemFS.OpenReadWrite(name, c, o...) })
}

func (d *smallDisk) open(name string, truncate bool, open func() (vfs.File, error)) (vfs.File, error) {
	n, err := d.node(name, truncate)
	if err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &smallFile{File: f, disk: d, node: n}, nil
}

func (d *smallDisk) Rename(from, to string) error {
	if err := d.MemFS.Rename(from, to); err != nil {
		return err
	}
	d.forget(to)
	d.mu.Lock()
	defer d.mu.Unlock()
	from, to = filepath.Clean(from), filepath.Clean(to)
	if n := d.files[from]; n != nil {
		delete(d.files, from)
		d.files[to] = n
	}
	return nil
}

func (d *smallDisk) Remove(name string) error {
	err := d.MemFS.Remove(name)
	if err == nil {
		d.forget(name)
	}
	return err
}

func (d *smallDisk) RemoveAll(name string) error {
	err := d.MemFS.RemoveAll(name)
	if err == nil {
		d.forget(name)
	}
	return err
}

type smallFile struct {
	vfs.File
	disk *smallDisk
	node *smallNode
	at   int64
}

func (f *smallFile) grow(to int64) error {
	return f.disk.resize(f.node, to, 0)
}

func (f *smallFile) Write(b []byte) (int, error) {
	if err := f.grow(f.at + int64(len(b))); err != nil {
		return 0, err
	}
	n, err := f.File.Write(b)
	f.at += int64(n)
	return n, err
}

func (f *smallFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.grow(at + int64(len(b))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func (f *smallFile) Preallocate(offset, length int64) error {
	return f.disk.resize(f.node, 0, offset+length)
}

// Wherever a disk fills up, and the process ends, in order or not: the database opens, is read, and says how it is; settings change, what is past its time
// goes, writes go on, and the ballast is there again.
func TestFullDisk(t *testing.T) {
	step := int64(101 << 10)
	if testing.Short() {
		step *= 5
	}
	for _, undo := range []bool{false, true} {
		for total := int64(2200 << 10); total < 5<<20; total += step {
			for _, killed := range []bool{false, true} {
				filled := total/step%2 == 0
				var dirs []string // outside of the database's own, and on the same disk
				if total/step%3 == 0 {
					dirs = []string{"/outside"}
				}
				t.Run(fmt.Sprintf("%d KiB, killed %t, undo %t, filled by others %t, in %q", total>>10, killed, undo, filled, dirs), func(t *testing.T) {
					testFullDisk(t, total, killed, undo, filled, dirs)
				})
			}
		}
	}
}

func testFullDisk(t *testing.T, total int64, killed, undo, filled bool, dirs []string) {
	disk := newSmallDisk(total)
	var ahead atomic.Int64
	o := Options{
		FS: disk, MemTableBytes: 256 << 10, CacheBytes: 1 << 20, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Log: batchlog.LogConfig{SegmentBytes: 64 << 10, Undo: undo, Dirs: dirs},
	}
	db, err := Open("/db", &o)
	check(t, err)
	written := fillUp(t, db)
	if killed {
		left := disk.clone()
		check(t, db.Close())
		disk, o.FS = left, left
	} else {
		check(t, db.Close())
	}
	free := disk.free()
	if filled {
		disk.fill()
	}
	db, err = Open("/db", &o)
	if err != nil {
		t.Fatalf("after %d commits, %d bytes free: %v", written, free, err)
	}
	defer func() { check(t, db.Close()) }()
	for _, i := range []int{0, written / 2, written - 1} {
		if v, err := db.Root().Get(t.Context(), batchlog.K(i%97)); err != nil || len(v) != 1500 {
			t.Fatalf("key %d: %d bytes, %v", i, len(v), err)
		}
	}
	st, err := db.Status(t.Context())
	if err != nil || st.Head != batchlog.ID(written) {
		t.Fatalf("%+v, %v, want head %d", st, err, written)
	}
	commits := 0
	for _, err := range db.Tail(t.Context(), batchlog.TailOptions{Until: st.Head}) {
		check(t, err)
		commits++
	}
	if commits != written {
		t.Errorf("%d commits of %d", commits, written)
	}
	if r, err := db.Verify(t.Context(), VerifyOptions{}); err != nil || len(r.Problems) > 0 {
		t.Errorf("verify after %d commits, %d bytes free: %v, %v", written, free, r.Problems, err)
	}
	o.Log.HotTTL = time.Minute
	if err := db.Configure(t.Context(), o.Log); err != nil {
		t.Fatalf("configure after %d commits, %d bytes free: %v", written, free, err)
	}
	ahead.Store(int64(time.Hour))
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := db.Trim(t.Context())
		_, putErr := db.Root().Put(t.Context(), batchlog.K("more"), make([]byte, 1500))
		if st, err := db.Status(t.Context()); err == nil && putErr == nil && st.Oldest > 1 && !db.engine.ballast.missing() {
			break
		}
		db.engine.restoreBallast()
		if time.Since(began) > 10*time.Second {
			st, _ := db.Status(t.Context())
			t.Fatalf("after %d commits: trim: %v; put: %v; %d bytes free; ballast missing: %t; %+v\n%v", written, err, putErr, disk.free(), db.engine.ballast.missing(), st, disk.list())
		}
	}
	for i := range 200 {
		if _, err := db.Root().Put(t.Context(), batchlog.K(i%97), make([]byte, 1500)); err != nil && !errors.Is(err, batchlog.ErrNoSpace) {
			t.Fatal(err)
		}
	}
}

// fill has others take what is free.
func (d *smallDisk) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total-d.used >= block {
		n := &smallNode{reserved: (d.total-d.used)/block*block - block}
		d.used += n.blocks() * block
		d.files["/others"] = n
	}
}

func (d *smallDisk) list() (files []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, n := range d.files {
		files = append(files, fmt.Sprintf("%s %d", name, n.blocks()*block))
	}
	return files
}

// fillUp writes until the disk is full, and returns how many were written.
func fillUp(t *testing.T, db *DB) (n int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	for refused := 0; refused < 3; {
		value := make([]byte, 1500)
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := db.Root().Put(ctx, batchlog.K(n%97), value)
		stop()
		switch {
		case err == nil:
			n++
		case errors.Is(err, batchlog.ErrNoSpace):
			refused++
			time.Sleep(30 * time.Millisecond)
		default:
			t.Fatalf("write %d: %v", n, err)
		}
	}
	return n
}

// What is past its time, and not yet in the store for good, goes on a full disk too: the ballast is for that.
func TestBallastFlushes(t *testing.T) {
	disk := newSmallDisk(8 << 20)
	d := openFaulty(t, disk, batchlog.LogConfig{SegmentBytes: 64 << 10, HotTTL: time.Hour})
	for i := range 400 {
		_, err := d.Root().Put(t.Context(), batchlog.K(i), make([]byte, 1500))
		check(t, err)
	}
	disk.fill()
	d.pass(2*time.Hour, 1)
	if d.engine.restoreBallast(); d.engine.ballast.missing() {
		t.Error("the ballast is not there again")
	}
}
