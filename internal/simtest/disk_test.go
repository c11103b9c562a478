package simtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bytespace/batchlog/internal/crashfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A disk is a file system that counts what is done to it, and can lose power, fail, or be full at a chosen operation. It stands
// over a crashable memory file system, so that what a loss of power leaves behind is what was synced and a random part of
// what was not, block by block.
type disk struct {
	mem *crashfs.FS

	// power is held for reading by every operation, from the check whether it may be done to its end, and for writing by the loss
	// of power: an operation is done wholly before it or not at all.
	power sync.RWMutex

	mu struct {
		sync.Mutex
		rng     *rand.Rand
		ops     int // that change something, so far
		all     int // of all kinds
		reads   map[string]int
		bytes   int64 // read from segments
		crashAt int   // loses power before the op with this number; 0: never
		percent int   // of unsynced blocks that survive
		torn    bool  // the write that the power is lost in comes to the disk in part
		survive *crashfs.FS
		dead    bool
		cleared time.Time // when it was full last, and ceased to be
		killed  bool      // the process ended, the power did not

		fault  func(op diskOp) error // nil: none
		faults int                   // that were returned
		full   bool
		quota  int64 // bytes that the disk takes in all; 0: any
		used   int64 // if there is a quota
		// reserved is up to where space was taken for a file beforehand.
		reserved map[string]int64
		// fullIn is how many operations that need space there is yet room for; 0: for as many as come.
		fullIn int
		trace  []string
	}
	tracing bool
	// ordered has the same seed make the same crash: see crashfs.FS.Survivor.
	ordered bool
	// counted says which changes a crash is counted in; nil: all.
	counted func(op diskOp) bool
	// watch is told of every change that is made; nil: nobody.
	watch func(op diskOp)
	// lenient says that a full disk still takes what is written over what is there, as most do.
	lenient bool
}

// A diskOp is an operation on a disk.
type diskOp struct {
	kind   string // open, create, read, write, sync, rename, remove, link, mkdir, list, lock, dirsync
	path   string
	offset int64 // of a write at a place
	size   int   // of a read or a write
	over   bool  // a write over what is there
	grow   int64 // bytes that it adds to what is on the disk
	n      int   // its number among all
	change int   // its number among those that change something; 0 if it does not
}

func (o diskOp) String() string {
	return fmt.Sprintf("%d/%d %s %s %d+%d", o.n, o.change, o.kind, o.path, o.offset, o.size)
}

// changes says which kinds change what a crash would leave behind.
var changes = map[string]bool{"create": true, "write": true, "sync": true, "rename": true, "remove": true, "link": true, "mkdir": true, "dirsync": true}

// needsSpace says which kinds fail on a full disk.
var needsSpace = map[string]bool{"create": true, "write": true, "rename": false, "link": true, "mkdir": true}

// errDead is what operations return when the power is gone.
var errDead = fmt.Errorf("the disk has no power: %w", syscall.EIO)

// errFault is what an operation that was chosen to fail returns.
var errFault = fmt.Errorf("injected fault: %w", syscall.EIO)

// newDisk is an empty disk, or one that begins with what mem holds.
func newDisk(mem *crashfs.FS, seed uint64) *disk {
	if mem == nil {
		mem = crashfs.New()
	}
	d := &disk{mem: mem}
	d.mu.rng = rand.New(rand.NewPCG(seed, 0xd15c))
	d.mu.reads, d.mu.reserved = map[string]int{}, map[string]int64{}
	return d
}

// crashIn makes the disk lose power before the n-th change from now, after which percent of the unsynced blocks survive. torn
// lets a write that is hit come to the disk in part.
func (d *disk) crashIn(n, percent int, torn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.crashAt, d.mu.percent, d.mu.torn, d.mu.killed = d.mu.ops+n, percent, torn, false
}

// killIn ends the process before the n-th change from now: all that it has written stays, and what it has removed stays away.
func (d *disk) killIn(n int) {
	d.crashIn(n, 100, false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.killed = true
}

// crash takes the power away now and returns what the disk is after it.
func (d *disk) crash(percent int) *crashfs.FS {
	d.power.Lock()
	defer d.power.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.survive == nil {
		d.mu.percent = percent
		d.mu.killed = d.mu.killed && d.mu.crashAt == 0 // that of kill, not one that has not come
		d.dieLocked()
	}
	return d.mu.survive
}

// dieLocked notes what survives. Nothing else may be under way.
func (d *disk) dieLocked() {
	d.mu.dead = true
	var err error
	switch {
	case d.mu.killed:
		d.mu.survive, err = d.mem.Copy()
	case d.ordered:
		d.mu.survive, err = d.mem.Survivor(d.mu.percent, d.mu.rng.Uint64(), []string{".seg"}, plainName)
	default:
		d.mu.survive = d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: d.mu.percent, RNG: d.mu.rng})
	}
	if err != nil {
		panic(err) // of a file system in memory
	}
}

// randomPart is what names of files have that is not the same in every run.
var randomPart = regexp.MustCompile(`[0-9a-f]{8,}(\.|$)`)

// plainName is a name without it.
func plainName(name string) string { return randomPart.ReplaceAllString(name, "*") }

// kill ends the process that has the disk: all that it has written stays.
func (d *disk) kill() {
	d.mu.Lock()
	if d.mu.survive == nil {
		d.mu.killed, d.mu.crashAt = true, 0
	}
	d.mu.Unlock()
	d.crash(100)
}

// crashed says whether the power is gone.
func (d *disk) crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.dead
}

// survivor is the disk after the loss of power.
func (d *disk) survivor() *crashfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.survive
}

// failing sets what fails: fault is asked for every operation.
func (d *disk) failing(fault func(op diskOp) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fault = fault
}

// faults is how many operations failed.
func (d *disk) faults() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.faults
}

// forgive forgets those that were.
func (d *disk) forgive() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.faults = 0
}

// setFull makes the disk full, or gives it space again.
func (d *disk) setFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.full = full
	if !full {
		d.mu.quota = 0
	}
}

// fullIn makes the disk full at the n-th operation from now that needs space.
func (d *disk) fullIn(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fullIn = n
}

// isFull says whether it is.
func (d *disk) isFull() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.full || d.mu.quota > 0
}

// clear ends all that was to go wrong.
func (d *disk) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.full || d.mu.quota > 0 {
		d.mu.cleared = time.Now()
	}
	d.mu.fault, d.mu.full, d.mu.fullIn, d.mu.crashAt, d.mu.quota = nil, false, 0, 0, 0
	d.mu.killed = d.mu.killed && d.mu.dead
}

// spaceSince is when there was space again, if that was by clear.
func (d *disk) spaceSince() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.cleared
}

// An armed is what is to go wrong on a disk.
type armed struct {
	fault   func(op diskOp) error
	full    bool
	fullIn  int
	crashIn int
	kill    bool // the crash is the end of the process
	quota   int64
}

// disarm has nothing go wrong until arm.
func (d *disk) disarm() armed {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := armed{fault: d.mu.fault, full: d.mu.full, fullIn: d.mu.fullIn}
	if d.mu.crashAt > d.mu.ops {
		a.crashIn, a.kill = d.mu.crashAt-d.mu.ops, d.mu.killed
	}
	a.quota, d.mu.quota = d.mu.quota, 0
	d.mu.fault, d.mu.full, d.mu.fullIn, d.mu.crashAt = nil, false, 0, 0
	return a
}

// arm takes up what disarm has put down.
func (d *disk) arm(a armed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fault, d.mu.full, d.mu.fullIn, d.mu.quota = a.fault, a.full, a.fullIn, a.quota
	if a.crashIn > 0 {
		d.mu.crashAt, d.mu.killed = d.mu.ops+a.crashIn, a.kill
	}
}

// count is how many changes, and how many operations of all kinds, there were.
func (d *disk) count() (changes, all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.ops, d.mu.all
}

// logReads is how many reads there were of segments, how many bytes, and how many were opened.
func (d *disk) logReads() (reads int, bytes int64, opens int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.reads["read"], d.mu.bytes, d.mu.reads["open"]
}

// do does an operation, unless power, fault or space are against it. The caller's part runs under power.
func (d *disk) do(op diskOp, run func() error, part func(size int)) error {
	again, err := d.tryDo(op, run)
	if !again {
		return err
	}
	d.power.Lock()
	defer d.power.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.dead {
		if d.mu.torn && part != nil && op.size > 1 {
			part(d.mu.rng.IntN(op.size))
		}
		d.dieLocked()
	}
	return errDead
}

// tryDo does an operation, or says that it is the one before which the power is lost.
func (d *disk) tryDo(op diskOp, run func() error) (dies bool, err error) {
	d.power.RLock()
	defer d.power.RUnlock()
	if dies, err := d.allow(op); dies || err != nil {
		return dies, err
	}
	return false, run()
}

// countOnly changes which changes a crash is counted in, while the disk is in use.
func (d *disk) countOnly(counted func(op diskOp) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted = counted
}

func (d *disk) allow(op diskOp) (dies bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.dead {
		if changes[op.kind] {
			return false, errDead
		}
		return false, nil // what was read before may still be read: the process does not know yet
	}
	d.mu.all++
	op.n = d.mu.all
	if strings.HasSuffix(op.path, ".seg") {
		d.mu.reads[op.kind]++
		if op.kind == "read" {
			d.mu.bytes += int64(op.size)
		}
	}
	if changes[op.kind] {
		if d.counted == nil || d.counted(op) {
			d.mu.ops++
			op.change = d.mu.ops
			if d.mu.ops == d.mu.crashAt {
				return true, nil
			}
		}
		if d.watch != nil {
			d.watch(op)
		}
	}
	if d.tracing {
		d.mu.trace = append(d.mu.trace, op.String())
	}
	if d.mu.fullIn > 0 && needsSpace[op.kind] {
		if d.mu.fullIn--; d.mu.fullIn == 0 {
			d.mu.full = true
		}
	}
	if !d.takesLocked(op) {
		return false, &os.PathError{Op: op.kind, Path: op.path, Err: syscall.ENOSPC}
	}
	if d.mu.full && needsSpace[op.kind] && !(d.lenient && op.over) {
		return false, &os.PathError{Op: op.kind, Path: op.path, Err: syscall.ENOSPC}
	}
	if d.mu.fault != nil {
		if err := d.mu.fault(op); err != nil {
			d.mu.faults++
			return false, &os.PathError{Op: op.kind, Path: op.path, Err: err}
		}
	}
	return false, nil
}

// run is do for what has no parts.
func (d *disk) run(kind, path string, run func() error) error {
	return d.do(diskOp{kind: kind, path: path}, run, nil)
}
