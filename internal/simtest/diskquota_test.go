package simtest

import (
	"strings"
)

// What a disk of simulations holds at most, to the byte, with what was reserved on it.

// setQuota bounds the disk to so many bytes more than it has now; what is removed makes room.
func (d *disk) setQuota(more int64) error {
	d.power.Lock()
	defer d.power.Unlock()
	all, err := files(d.mem, "/")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.used = 0
	for path, size := range all {
		d.mu.used += max(size, d.mu.reserved[strings.TrimPrefix(path, "/")], d.mu.reserved[path])
	}
	d.mu.quota = d.mu.used + more
	return nil
}

// Preallocate takes space that a quota counts.
func (f *diskFile) Preallocate(offset, length int64) error {
	d := f.disk
	has := d.size(f.path)
	op := diskOp{kind: "write", path: f.path, offset: offset, size: int(length), over: true}
	d.mu.Lock()
	if d.mu.quota > 0 {
		op.grow = max(0, offset+length-max(has, d.mu.reserved[f.path]))
	}
	d.mu.Unlock()
	return d.do(op, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.reserved[f.path] = max(d.mu.reserved[f.path], offset+length)
		return nil
	}, nil)
}

// keepReserved takes over what was reserved on the disk that this one is what is left of.
func (d *disk) keepReserved(old *disk) {
	old.mu.Lock()
	defer old.mu.Unlock()
	for path, size := range old.mu.reserved {
		if _, err := d.mem.Stat(path); err == nil {
			d.mu.reserved[path] = size
		}
	}
}

// takesLocked says whether there is room for what an operation adds.
func (d *disk) takesLocked(op diskOp) bool {
	if d.mu.quota == 0 {
		return true
	}
	if d.mu.used+op.grow > d.mu.quota && op.grow > 0 {
		return false
	}
	d.mu.used += op.grow
	return true
}

// size is that of a file; 0 if there is none.
func (d *disk) size(name string) int64 {
	info, err := d.mem.Stat(name)
	if err != nil || info.IsDir() {
		return 0
	}
	return info.Size()
}
