package main

import (
	"sync"

	"github.com/bytespace/batchlog"
)

// A stageMeter shows work of several stages, each with a meter of its own, that is reported from any goroutine.
type stageMeter struct {
	meters func(label, unit string, total int64) *meter

	mu struct {
		sync.Mutex
		label string
		shown *meter // nil before the first stage, and where nothing is shown
	}
}

// chain shows how far a chain is. It is a [batchlog.Chain.Progress].
func (s *stageMeter) chain(p batchlog.ChainProgress) { s.set(p.Stage, "ops", p.Ops, p.Total, p.Bytes) }

// set says how far a stage is, total 0 being not known; bytes are counted beside.
func (s *stageMeter) set(label, unit string, done, total, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.label != label {
		s.mu.shown.end()
		s.mu.label, s.mu.shown = label, s.meters(label, unit, total)
	}
	if s.mu.shown != nil {
		s.mu.shown.total = total
		s.mu.shown.set(done, bytes)
	}
}

// end takes what is shown off the terminal; it may go on after.
func (s *stageMeter) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.shown.end()
}
