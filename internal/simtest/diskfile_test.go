package simtest

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The operations of a disk of simulations, each of which goes by disk.do.

func (d *disk) file(kind, path string, open func() (vfs.File, error)) (vfs.File, error) {
	var f vfs.File
	err := d.run(kind, path, func() (err error) {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d, path: path}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file("create", name, func() (vfs.File, error) { return d.mem.Create(name, c) })
}

func (d *disk) Open(name string, _ ...vfs.OpenOption) (vfs.File, error) {
	return d.file("open", name, func() (vfs.File, error) { return d.mem.Open(name) })
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	kind := "create"
	if _, err := d.mem.Stat(name); err == nil {
		kind = "open"
	}
	return d.file(kind, name, func() (vfs.File, error) { return d.mem.OpenReadWrite(name, c) })
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	var f vfs.File
	err := d.run("open", name, func() (err error) {
		f, err = d.mem.OpenDir(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d, path: name, dir: true}, nil
}

func (d *disk) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file("rename", oldname, func() (vfs.File, error) { return d.mem.ReuseForWrite(oldname, newname, c) })
}

func (d *disk) Link(oldname, newname string) error {
	return d.run("link", oldname, func() error { return d.mem.Link(oldname, newname) })
}

func (d *disk) Remove(name string) error {
	size := d.size(name)
	d.mu.Lock()
	size = max(size, d.mu.reserved[name])
	d.mu.Unlock()
	return d.do(diskOp{kind: "remove", path: name, grow: -size}, func() error {
		err := d.mem.Remove(name)
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.mu.reserved, name)
		}
		return err
	}, nil)
}

func (d *disk) RemoveAll(name string) error {
	return d.run("remove", name, func() error { return d.mem.RemoveAll(name) })
}

func (d *disk) Rename(oldname, newname string) error {
	return d.run("rename", oldname, func() error { return d.mem.Rename(oldname, newname) })
}

func (d *disk) MkdirAll(dir string, perm os.FileMode) error {
	return d.run("mkdir", dir, func() error { return d.mem.MkdirAll(dir, perm) })
}

func (d *disk) Lock(name string) (lock io.Closer, err error) {
	err = d.run("lock", name, func() (err error) {
		lock, err = d.mem.Lock(name)
		return err
	})
	return lock, err
}

func (d *disk) List(dir string) (names []string, err error) {
	err = d.run("list", dir, func() (err error) {
		names, err = d.mem.List(dir)
		return err
	})
	return names, err
}

func (d *disk) Stat(name string) (info vfs.FileInfo, err error) {
	err = d.run("stat", name, func() (err error) {
		info, err = d.mem.Stat(name)
		return err
	})
	return info, err
}

func (d *disk) PathBase(p string) string { return d.mem.PathBase(p) }

func (d *disk) PathJoin(elem ...string) string { return d.mem.PathJoin(elem...) }

func (d *disk) PathDir(p string) string { return d.mem.PathDir(p) }

func (d *disk) Unwrap() vfs.FS { return nil }

func (d *disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported
}

// A diskFile is a file of a disk.
type diskFile struct {
	vfs.File
	disk *disk
	path string
	dir  bool
}

func (f *diskFile) Read(p []byte) (n int, err error) {
	err = f.disk.do(diskOp{kind: "read", path: f.path, size: len(p)}, func() (err error) {
		n, err = f.File.Read(p)
		return err
	}, nil)
	return n, err
}

func (f *diskFile) ReadAt(p []byte, offset int64) (n int, err error) {
	err = f.disk.do(diskOp{kind: "read", path: f.path, offset: offset, size: len(p)}, func() (err error) {
		n, err = f.File.ReadAt(p, offset)
		return err
	}, nil)
	return n, err
}

func (f *diskFile) Write(p []byte) (n int, err error) {
	err = f.disk.do(diskOp{kind: "write", path: f.path, size: len(p), grow: int64(len(p))}, func() (err error) {
		n, err = f.File.Write(p)
		return err
	}, func(size int) { _, _ = f.File.Write(p[:size]) })
	return n, err
}

func (f *diskFile) WriteAt(p []byte, offset int64) (n int, err error) {
	info, err := f.File.Stat()
	over := err == nil && offset+int64(len(p)) <= info.Size()
	var grow int64
	if err == nil {
		f.disk.mu.Lock()
		grow = max(0, offset+int64(len(p))-max(info.Size(), f.disk.mu.reserved[f.path]))
		f.disk.mu.Unlock()
	}
	err = f.disk.do(diskOp{kind: "write", path: f.path, offset: offset, size: len(p), over: over, grow: grow}, func() (err error) {
		n, err = f.File.WriteAt(p, offset)
		return err
	}, func(size int) { _, _ = f.File.WriteAt(p[:size], offset) })
	return n, err
}

func (f *diskFile) syncKind() string {
	if f.dir {
		return "dirsync"
	}
	return "sync"
}

func (f *diskFile) Sync() error {
	return f.disk.run(f.syncKind(), f.path, f.File.Sync)
}

func (f *diskFile) SyncData() error {
	return f.disk.run(f.syncKind(), f.path, f.File.SyncData)
}

// SyncTo promises nothing, so it does nothing.
func (f *diskFile) SyncTo(int64) (fullSync bool, err error) { return false, nil }
