package batchlog

import (
	"time"

	"github.com/bytespace/batchlog/internal/wire"
)

// An ID is a commit's number: 1, 2, 3 … dense in a database, never used twice and never going
// back. 0 stands before the first commit. Its String is the id in decimal.
type ID = wire.ID

// An Epoch is one line of a database's history. A restore to an earlier point begins the next epoch, so
// that (epoch, id) names one commit for ever. The first epoch is 1.
type Epoch uint64

// A Position is a place in the log from which to follow it. The zero Position is [First].
// What is asked for but no longer there is a *[GapError], never a later start.
type Position struct {
	at   positionKind
	id   ID
	time time.Time
}

type positionKind uint8

const (
	atFirst positionKind = iota
	atOldest
	atID
	atTime
	atNow
)

// First is the position of commit 1, whether or not the log still has it.
func First() Position { return Position{} }

// Oldest is the position of the oldest commit that the log still has.
func Oldest() Position { return Position{at: atOldest} }

// At is the position of commit id: following from it yields id first. An id after head is waited for.
func At(id ID) Position { return Position{at: atID, id: max(id, 1)} }

// After is the position behind commit id: following from it yields id+1 first. It is how
// a follower that has handled id goes on.
func After(id ID) Position { return Position{at: atID, id: id + 1} }

// Since is the position of the first commit whose time is t or later. Times are what the clock of the machine said, and never go back along ids: after a
// moment at which it was ahead, commits have that time until it has caught up.
func Since(t time.Time) Position { return Position{at: atTime, time: t} }

// Now is the position behind the commit that is newest when following starts.
func Now() Position { return Position{at: atNow} }

// Resolve asks look for what p stands for and returns the id of the first commit to yield. It is
// for engines: oldest and head are the ids of the oldest and the newest commit of the log at one
// moment, sinceTime finds the first id whose commit is not older than t (head+1 if there is none).
func (p Position) Resolve(oldest, head ID, sinceTime func(t time.Time) (ID, error)) (ID, error) {
	switch p.at {
	case atOldest:
		return oldest, nil
	case atID:
		return p.id, nil
	case atTime:
		return sinceTime(p.time)
	case atNow:
		return head + 1, nil
	default:
		return 1, nil
	}
}

// String is p as the command line takes it: "first", "oldest", "now", an id or a time.
func (p Position) String() string {
	switch p.at {
	case atOldest:
		return "oldest"
	case atID:
		return p.id.String()
	case atTime:
		return p.time.UTC().Format(time.RFC3339Nano)
	case atNow:
		return "now"
	default:
		return "first"
	}
}
