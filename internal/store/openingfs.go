package store

import (
	"errors"
	"io"
	"sync"

	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// An openingFS notes, while the store is opened, what was read last and how the disk failed, so that what is wrong with a file is told from what is wrong with the disk.
type openingFS struct {
	mu     sync.Mutex
	over   bool
	read   string
	errors []error
}

func (o *openingFS) note(name string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return
	}
	o.read = name
	if err != nil && !disk.NotExist(err) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		o.errors = append(o.errors, err)
	}
}

// opened ends that: from now on somebody who waits for space is not one who opens.
func (p *patientFS) opened() {
	p.opening.mu.Lock()
	p.opening.over, p.opening.errors = true, nil
	p.opening.mu.Unlock()
	p.patient.Store(true)
}

// lastRead is the file that was read last while the store was opened.
func (p *patientFS) lastRead() string {
	p.opening.mu.Lock()
	defer p.opening.mu.Unlock()
	return p.opening.read
}

// failedOpening reports whether err is one of the disk's while the store was opened.
func (p *patientFS) failedOpening(err error) bool {
	p.opening.mu.Lock()
	defer p.opening.mu.Unlock()
	for _, e := range p.opening.errors {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Open opens a file for reading.
func (p *patientFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := p.FS.Open(name, opts...)
	p.opening.note(name, err)
	if err != nil || p.patient.Load() {
		return f, err
	}
	return &openingFile{File: f, fs: &p.opening, name: name}, nil
}

// An openingFile is one that was opened for reading before the store was.
type openingFile struct {
	vfs.File
	fs   *openingFS
	name string
}

func (f *openingFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	f.fs.note(f.name, err)
	return n, err
}

func (f *openingFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(b, at)
	f.fs.note(f.name, err)
	return n, err
}
