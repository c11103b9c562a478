package seglog

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/bytespace/batchlog/internal/segment"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file of a table begins with a header, and the edits that make the table of nothing; then come the edits since, as they
// are made. The manifest says which file it is, up to where it must be there, and which it is among those of that name:
//
//	batchlog manifest 2 9ae0daaf
//	{ "table": "table-000007", "id": "…", "snapshot": 8192 }
//
// When the edits since outweigh what the file began with, another file takes its place. So the file is never more than some times as
// large as the table, and all that is ever written is in proportion to the edits.
//
//	 0               8       12      16              32              48          52    56      64
//	+---------------+-------+-------+---------------+---------------+-----------+-----+-------+------ ...
//	|     magic     |version|   0   | database uuid |      id       |  number   | sum |   0   | records
//	+---------------+-------+-------+---------------+---------------+-----------+-----+-------+------ ...
//
//	magic   "BLOGTAB" and a zero
//	id      of this file alone
//	number  in its name
//	sum     CRC-32C of all before
//
// A record is one edit. It begins at a multiple of eight. What follows the last one is zeros, or was left by a write that failed.
//
//	 0      4      8      12     16          24           24+size
//	+------+------+------+------+-----------+---- ... ---+
//	| sum  | size | prev | body |  durable  |    edit    |
//	+------+------+------+------+-----------+---- ... ---+
//
//	sum      CRC-32C, salted with the id of the file, of the header from size to its end. The size is believed only when it holds
//	size     of the edit, in bytes
//	prev     sum of the record before, of the file's header for the first: what an earlier run left behind the end does not
//	         become part of the table again
//	body     CRC-32C, salted, of the edit
//	durable  offset up to which the file was durable when this was written. A record that doesn't hold before a later one that says so
//	         is damage, not one whose sync did not return
//
// A record that is a mark alone is not synced, and the next record is written over it.
const (
	manifestName    = "manifest"
	manifestVersion = 2

	tablePrefix  = "table-"
	tableVersion = 1
	tableMagic   = "BLOGTAB\x00"

	tableHeadVersion = 8
	tableHeadDB      = 16
	tableHeadID      = 32
	tableHeadNumber  = 48
	tableHeadSum     = 52
	tableHeadSize    = 64

	recordSize    = 4
	recordPrev    = 8
	recordBody    = 12
	recordDurable = 16
	recordHead    = 24

	// tableAhead is how far a table's file is filled with zeros ahead of its records, in bytes, and tableRoom what must be left of that: on
	// a full disk segments can still be moved and dropped, which is how it gets room again.
	tableAhead = 64 << 10
	tableRoom  = 32 << 10

	tableWriteBytes = 256 << 10 // of a snapshot, written at once
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A tableHead says which file this is.
type tableHead struct {
	database segment.UUID
	id       segment.UUID
	number   uint32
}

func tableName(number uint32) string { return fmt.Sprintf("%s%06d", tablePrefix, number) }

// tableNumber is that of the table's file of that name.
func tableNumber(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, tablePrefix)
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && name == tableName(uint32(n))
}

func (h tableHead) salt() uint32 { return crc32.Checksum(h.id[:], castagnoli) }

func (h tableHead) append(dst []byte) []byte {
	b := make([]byte, tableHeadSize)
	copy(b, tableMagic)
	le.PutUint32(b[tableHeadVersion:], tableVersion)
	copy(b[tableHeadDB:], h.database[:])
	copy(b[tableHeadID:], h.id[:])
	le.PutUint32(b[tableHeadNumber:], h.number)
	le.PutUint32(b[tableHeadSum:], crc32.Checksum(b[:tableHeadSum], castagnoli))
	return append(dst, b...)
}

// parseTableHead is the header at the start of b, and its sum. name is the file's, for errors.
func parseTableHead(b []byte, name string) (h tableHead, sum uint32, err error) {
	damaged := func(what string) (tableHead, uint32, error) {
		return tableHead{}, 0, &batchlog.CorruptError{File: name, Err: errors.New(what)}
	}
	if len(b) < tableHeadSize || string(b[:len(tableMagic)]) != tableMagic {
		return damaged("not a table of segments")
	}
	if sum = le.Uint32(b[tableHeadSum:]); sum != crc32.Checksum(b[:tableHeadSum], castagnoli) {
		return damaged("header does not match its sum")
	}
	if v := le.Uint32(b[tableHeadVersion:]); v != tableVersion {
		return tableHead{}, 0, &batchlog.VersionError{What: name, Version: v, Known: tableVersion}
	}
	h.database, h.id = segment.UUID(b[tableHeadDB:]), segment.UUID(b[tableHeadID:])
	h.number = le.Uint32(b[tableHeadNumber:])
	return h, sum, nil
}

// appendRecord appends the record of an edit, filled up to a multiple of eight.
func appendRecord(dst []byte, body []byte, salt, prev uint32, durable int64) (_ []byte, sum uint32) {
	var h [recordHead]byte
	le.PutUint32(h[recordSize:], uint32(len(body)))
	le.PutUint32(h[recordPrev:], prev)
	le.PutUint32(h[recordBody:], crc32.Update(salt, castagnoli, body))
	le.PutUint64(h[recordDurable:], uint64(durable))
	sum = crc32.Update(salt, castagnoli, h[recordSize:])
	le.PutUint32(h[:], sum)
	dst = append(append(dst, h[:]...), body...)
	return append(dst, make([]byte, -len(body)&7)...), sum
}

// A tableDoc is what the manifest says.
type tableDoc struct {
	Table    string `json:"table"`
	ID       string `json:"id"`
	Snapshot int64  `json:"snapshot"` // the file is at least as long, in bytes
}

// A tableFile is the file that edits are written to.
type tableFile struct {
	head     tableHead
	file     vfs.File
	prev     uint32 // sum of the last record
	at       int64  // where the next record goes: all before is durable
	size     int64  // of the file
	snapshot int64  // up to where it is what it began with
}

// createTable makes the file of a table that edits make of nothing. It is durable when this returns, but its name.
func createTable(fs vfs.FS, dir string, h tableHead, edits iter.Seq[edit]) (_ *tableFile, err error) {
	name := filepath.Join(dir, tableName(h.number))
	if err := disk.Remove(fs, name); err != nil { // what an earlier try has left: opened for writing it would be kept
		return nil, err
	}
	f := &tableFile{head: h, at: tableHeadSize}
	if f.file, err = fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.file.Close(), disk.Remove(fs, name))
		}
	}()
	b := h.append(nil)
	f.prev = le.Uint32(b[tableHeadSum:])
	var body []byte
	written := int64(0)
	for e := range edits {
		before := len(b)
		body = appendEdit(body[:0], e)
		b, f.prev = appendRecord(b, body, h.salt(), f.prev, 0)
		f.at += int64(len(b) - before)
		if len(b) >= tableWriteBytes {
			if _, err := f.file.WriteAt(b, written); err != nil {
				return nil, err
			}
			written += int64(len(b))
			b = b[:0]
		}
	}
	b = append(b, make([]byte, tableAhead)...)
	if _, err := f.file.WriteAt(b, written); err != nil {
		return nil, err
	}
	f.size, f.snapshot = written+int64(len(b)), f.at
	return f, f.file.Sync()
}

// append writes edits and makes them durable. If it fails and the file is spoilt nobody knows what it holds, and it must not be used any more; else it
// is as it was: with the disk full, say.
func (f *tableFile) append(bodies ...[]byte) (spoilt bool, err error) {
	var b []byte
	sum := f.prev
	for _, body := range bodies {
		b, sum = appendRecord(b, body, f.head.salt(), sum, f.at)
	}
	if _, err := f.file.WriteAt(b, f.at); err != nil {
		return !noSpace(err), fmt.Errorf("write table of segments: %w", err)
	}
	if err := f.file.SyncData(); err != nil {
		return true, fmt.Errorf("sync table of segments: %w", err)
	}
	f.prev, f.at = sum, f.at+int64(len(b))
	f.size = max(f.size, f.at)
	return false, nil
}

// mark writes what the next edit is written over, and does not make it durable.
func (f *tableFile) mark(m mark) error {
	b, _ := appendRecord(nil, appendEdit(nil, edit{m.change()}), f.head.salt(), f.prev, f.at)
	_, err := f.file.WriteAt(b, f.at)
	if err == nil {
		f.size = max(f.size, f.at+int64(len(b)))
	}
	return err
}

// extend has zeros ahead of the records again. They are nothing that must be durable: a sync that fails spoils no edit before it, but it is the end
// of the file as any other.
func (f *tableFile) extend() (spoilt bool, err error) {
	if _, err := f.file.WriteAt(make([]byte, f.at+tableAhead-f.size), f.size); err != nil {
		return false, err
	}
	f.size = f.at + tableAhead
	err = f.file.SyncData()
	return err != nil, err
}

// worn reports whether the edits outweigh what the file began with, so that another one is to take its place.
func (f *tableFile) worn() bool { return f.at-f.snapshot > max(f.snapshot, tableAhead) }

// doc is what the manifest says of f.
func (f *tableFile) doc() []byte {
	body, err := json.Marshal(tableDoc{Table: tableName(f.head.number), ID: hex.EncodeToString(f.head.id[:]), Snapshot: f.snapshot})
	if err != nil {
		panic("batchlog: bug: manifest: " + err.Error()) // strings and a number
	}
	return disk.AppendDocument(nil, manifestName, manifestVersion, body)
}

// A readTable is a table as its file has it.
type readTable struct {
	table    *table
	head     tableHead
	prev     uint32
	at       int64 // behind the last edit
	last     int64 // where that begins, 0: it is part of the snapshot
	snapshot int64
}

var (
	errRecordNone = errors.New("no edit")
	errRecordEnd  = errors.New("edit goes beyond the end of the file")
	errRecordSum  = errors.New("edit does not match its sum")
	errRecordPrev = errors.New("edit does not follow the one before it")
)

// parseRecord is the record at b[at:], and its sum.
func parseRecord(b []byte, at int64, salt, prev uint32) (body []byte, sum uint32, err error) {
	if at+recordHead > int64(len(b)) {
		return nil, 0, errRecordEnd
	}
	h := b[at : at+recordHead]
	if sum = le.Uint32(h); sum != crc32.Update(salt, castagnoli, h[recordSize:]) {
		return nil, 0, errRecordNone
	}
	size := int64(le.Uint32(h[recordSize:]))
	switch {
	case (size+7)&^7 > int64(len(b))-at-recordHead:
		return nil, 0, errRecordEnd
	case le.Uint32(h[recordPrev:]) != prev:
		return nil, 0, errRecordPrev
	}
	body = b[at+recordHead : at+recordHead+size]
	if crc32.Update(salt, castagnoli, body) != le.Uint32(h[recordBody:]) {
		return nil, 0, errRecordSum
	}
	return body, sum, nil
}

// claimed is the highest offset that the head of any record from at on says was durable. Only the head needs to hold for that.
func claimed(b []byte, at int64, salt uint32) int64 {
	highest := int64(0)
	for ; at+recordHead <= int64(len(b)); at += 8 {
		h := b[at : at+recordHead]
		if le.Uint64(h[recordDurable:]) != 0 && le.Uint32(h) == crc32.Update(salt, castagnoli, h[recordSize:]) {
			highest = max(highest, int64(le.Uint64(h[recordDurable:])))
		}
	}
	return highest
}

// parseTable makes the table of what its file holds. doc is what the manifest says of it; name is the file's, for errors.
func parseTable(b []byte, name string, doc tableDoc) (*readTable, error) {
	h, sum, err := parseTableHead(b, name)
	if err != nil {
		return nil, err
	}
	r := &readTable{table: &table{}, head: h, prev: sum, at: tableHeadSize, snapshot: doc.Snapshot}
	damaged := func(err error) (*readTable, error) {
		return nil, &batchlog.CorruptError{File: name, Offset: r.at, Err: err}
	}
	if hex.EncodeToString(h.id[:]) != doc.ID || tableName(h.number) != doc.Table {
		return damaged(errors.New("not the table that the manifest names, but one from another time: restore both from the same copy"))
	}
	for {
		body, sum, err := parseRecord(b, r.at, h.salt(), r.prev)
		if err != nil {
			if max(doc.Snapshot, claimed(b, r.at, h.salt())) > r.at {
				return damaged(err)
			}
			break // the end, or an edit whose sync did not return
		}
		e, err := parseEdit(body)
		if err != nil { // the sums hold, so these bytes were meant
			return damaged(err)
		}
		next, err := r.table.apply(e)
		if err != nil {
			return damaged(err)
		}
		r.table = next
		if len(e) == 1 && e[0].kind == kindMark {
			break // it is always the last, and written over
		}
		if r.prev = sum; r.at >= doc.Snapshot {
			r.last = r.at
		}
		r.at += recordHead + int64(len(body)+7)&^7
	}
	if a := r.table.active(); a == nil || a.state != active {
		return damaged(errors.New("table without an active segment"))
	}
	return r, nil
}

// openTable opens the file that r was read from, to write to it. The last edit is written once more and synced: it was read, but maybe from
// memory only, as its sync may have failed.
func openTable(fs vfs.FS, dir string, r *readTable) (*tableFile, error) {
	name := filepath.Join(dir, tableName(r.head.number))
	file, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	f := &tableFile{head: r.head, file: file, prev: r.prev, at: r.at, snapshot: r.snapshot}
	info, err := file.Stat()
	if err == nil {
		f.size = info.Size()
		err = f.confirm(r.last)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("table of segments %s: %w", name, err), file.Close())
	}
	return f, nil
}

// confirm writes the records from an offset on again.
func (f *tableFile) confirm(from int64) error {
	if from == 0 {
		return nil
	}
	b := make([]byte, f.at-from)
	if n, err := f.file.ReadAt(b, from); n < len(b) {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	if _, err := f.file.WriteAt(b, from); err != nil {
		return fmt.Errorf("write the last edit again: %w", err)
	}
	return f.file.SyncData()
}
