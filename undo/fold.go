package undo

import (
	"slices"

	"github.com/bytespace/batchlog"
)

// A step is a commit of an actor, with what has become of it.
type step struct {
	id  batchlog.ID // the commit
	now batchlog.ID // in effect by this one: the commit itself, or the redo that brought it back last
	by  batchlog.ID // taken back by this one, if it is
	// shared says that now has brought back other steps besides: to take back this one alone is to take back id.
	shared bool
}

// A fold is the stacks of an actor as of some commit: what all commits up to it come to, in the order of the log.
//
// A commit of the actor is a step, and ends what could be redone. One that takes steps back moves them to what can be redone, whoever made it: they are undone.
// One that takes that back moves them back. A commit of the actor that takes back, or brings back, what is no step of the actor is a step itself.
type fold struct {
	label, value string
	depth        int

	at   batchlog.ID // the commit up to which the log is folded
	last batchlog.ID // the newest commit that made a difference
	undo []step      // what can be taken back, the newest last
	redo []step      // what can be brought back, that which was taken back last comes last
}

// nextUndo is the commit that an undo takes back, the newest step or the redo that brought it back; 0: there is none.
func (f *fold) nextUndo() batchlog.ID {
	if len(f.undo) == 0 {
		return 0
	}
	if s := f.undo[len(f.undo)-1]; !s.shared {
		return s.now
	}
	return f.undo[len(f.undo)-1].id
}

// nextRedo is the commit that a redo takes back; 0: there is none.
func (f *fold) nextRedo() batchlog.ID {
	if len(f.redo) == 0 {
		return 0
	}
	return f.redo[len(f.redo)-1].by
}

// add is what a commit does to the stacks.
func (f *fold) add(id batchlog.ID, labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	value, own := labels[f.label]
	own = own && value == f.value
	known := false
	for _, undone := range parseIDs(labels[LabelUndo]) {
		known = f.takeBack(undone, id) || f.bringBack(undone, id) || f.isUndone(undone) || known
	}
	for _, undo := range parseIDs(labels[LabelRedo]) {
		known = f.bringBack(undo, id) || known
	}
	if own && !known {
		f.undo, f.redo = append(f.undo, step{id: id, now: id}), nil
		f.last = id
	}
	if n := len(f.undo) - f.depth; n > 0 {
		f.undo = slices.Delete(f.undo, 0, n)
	}
}

// takeBack moves what commit undone is, a step or the redo of some, to what can be redone, as commit by has taken it back.
func (f *fold) takeBack(undone, by batchlog.ID) bool {
	is := func(s step) bool { return s.id == undone || s.now == undone }
	found := false
	for _, s := range slices.Backward(f.undo) {
		if is(s) {
			f.redo = append(f.redo, step{id: s.id, now: s.now, by: by})
			f.last, found = by, true
		}
	}
	f.undo = slices.DeleteFunc(f.undo, is)
	return found
}

// bringBack moves the steps that commit undo has taken back to what can be undone, as commit by has brought them back: in the opposite order.
func (f *fold) bringBack(undo, by batchlog.ID) bool {
	is := func(s step) bool { return s.by == undo }
	first := len(f.undo)
	for _, s := range slices.Backward(f.redo) {
		if is(s) {
			f.undo = append(f.undo, step{id: s.id, now: by})
			f.last = by
		}
	}
	f.redo = slices.DeleteFunc(f.redo, is)
	back := f.undo[first:]
	for i := range back {
		back[i].shared = len(back) > 1
	}
	return len(back) > 0
}

func (f *fold) isUndone(id batchlog.ID) bool {
	return slices.ContainsFunc(f.redo, func(s step) bool { return s.id == id || s.now == id })
}
