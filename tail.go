package batchlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/bytespace/batchlog/internal/wire"
)

// TailOptions say which commits a tail yields.
type TailOptions struct {
	From   Position // the zero value is First: commit 1, a *GapError if that is gone
	Spaces []*Space // only commits with an op in the subtree of one of these, with those ops; none: all commits
	Until  ID       // the last commit to yield; 0: follow for ever
	// Bookmarks asks for commits that stand for a place (see Commit.Bookmark) where the log was looked
	// through without a match, so that a follower with a narrow filter can move its position on.
	Bookmarks bool
	// Brief has a commit, and all that its ops refer to, be valid only until the next one is asked for: for who looks at much and keeps
	// nothing, as the memory is used again. Catching up from files is several times as fast then.
	Brief bool
}

// Tail yields commits in the order of their ids, from o.From on, and goes on with those that are yet to
// come until ctx ends, o.Until is reached or the database is closed. What it promises:
//
//   - ordered: ids ascend;
//   - unique: no commit comes twice;
//   - reliable: no commit between two that come is left out, but by o.Spaces; where that can't be
//     kept, the tail ends with a *[GapError] or *[CorruptError], or a *[DirError] while a disk is away;
//   - atomic: a commit comes whole, with all of its ops in the spaces that the tail is about;
//   - resumable: a tail that was broken off goes on with After(the last id);
//   - bookmarkable: a bookmark says that all up to its id has come.
//
// Only durable commits come. A slow follower holds nobody up and loses nothing: it reads from
// files what is no longer in memory. An error ends the iteration; after the end of ctx it is the context's.
func (db *DB) Tail(ctx context.Context, o TailOptions) iter.Seq2[*Commit, error] {
	return func(yield func(*Commit, error) bool) {
		l := &lens{db: db}
		for _, s := range o.Spaces {
			if err := db.owns(s); err != nil {
				yield(nil, fmt.Errorf("tail: %w", err))
				return
			}
			l.opens = append(l.opens, wire.Open(s.prefix))
		}
		l.opens = wire.SortedPrefixes(l.opens)
		r, err := db.engine.Log(ctx, LogOptions{From: o.From, Until: o.Until, Within: l.opens, Brief: o.Brief})
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Close()
		for {
			records, scanned, err := r.Next(ctx)
			if !yieldRecords(records, l, o.Brief, yield) {
				return
			}
			if errors.Is(err, io.EOF) && !o.Bookmarks {
				return
			}
			if o.Bookmarks && scanned > 0 && (len(records) == 0 || records[len(records)-1].ID < scanned) {
				if !yield(&Commit{ID: scanned, bookmark: true, lens: l}, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// yieldRecords yields records as commits and reports whether to go on. Commits are made some at a time, as a
// follower that catches up makes millions a second; brief ones are all the same one.
func yieldRecords(records []wire.Record, l *lens, brief bool, yield func(*Commit, error) bool) bool {
	some := 32
	if brief {
		some = 1
	}
	var made []Commit
	for i := range records {
		if len(made) == 0 {
			made = make([]Commit, min(some, len(records)-i))
		}
		c := &made[0]
		if brief {
			*c = Commit{}
		} else {
			made = made[1:]
		}
		if err := c.read(&records[i], l); err != nil {
			yield(nil, err)
			return false
		}
		if !yield(c, nil) {
			return false
		}
	}
	return true
}
