// Package crashfs is the disk of our crash tests: a file system in memory that can say at any moment, under any load, what a
// loss of power would leave of it.
package crashfs

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An FS is a [vfs.MemFS] that may be cloned while files are linked. Of a MemFS alone the two wait for each other for ever, now and
// then: Link takes the lock that CrashClone waits for twice, and a sync.RWMutex lets no reader pass a writer that waits. Taking
// a table into the store links it, so a crash test of anything that stores chains would hang once in a while.
type FS struct {
	*vfs.MemFS
	linking sync.RWMutex // held for reading while a file is linked, for writing while the disk is cloned
}

// New is an empty disk.
func New() *FS {
	return &FS{MemFS: vfs.NewCrashableMem()}
}

// Link gives a file a second name.
func (fs *FS) Link(oldname, newname string) error {
	fs.linking.RLock()
	defer fs.linking.RUnlock()
	return fs.MemFS.Link(oldname, newname)
}

// CrashClone is a disk with what a loss of power at this moment leaves: all that was synced, and as much as cfg says of the rest.
func (fs *FS) CrashClone(cfg vfs.CrashCloneCfg) *FS {
	fs.linking.Lock()
	defer fs.linking.Unlock()
	return &FS{MemFS: fs.MemFS.CrashClone(cfg)}
}
