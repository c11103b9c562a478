package waist

import "github.com/bytespace/batchlog/internal/wire"

// What packages of this module that extend the database (tasks, undo) see of its types beside what programs do: stored keys and values as they
// are, blobs by their references. Each type of the front hands it out by its method Inside.

// A DB is a database from inside. S is the type of its spaces, E that of its engine.
type DB[S, E any] interface {
	// Engine is what the database stands on.
	Engine() E
	// System is the space of the system's own keys: the cursors of tasks, what holds the log. It lies beside the root, so no other
	// space leads there, and tails without a filter don't show its ops.
	System() S
	// SpaceAt is the space with this closed path, which is copied.
	SpaceAt(path []byte) (S, error)
	// Split is the space of a stored key, and the key in it, which shares its memory.
	Split(stored []byte) (s S, key []byte, err error)
	// Owns returns why a space can't be used with the database, or nil.
	Owns(s S) error
}

// A Tx is a transaction from inside.
type Tx interface {
	// Get returns the value of a stored key as the store holds it, or batchlog.ErrNotFound. The value is the caller's.
	Get(key []byte) ([]byte, error)
	// Put sets the value of a stored key to one as the store holds it. A malformed key or value is remembered and ends the transaction.
	Put(key, value []byte)
	// Delete removes a stored key.
	Delete(key []byte)
	// Move makes the transaction's commit that of a task's window.
	Move(m wire.TaskMove)
}

// A Chain is a chain from inside.
type Chain interface {
	// Put is as that of a Tx.
	Put(key, value []byte)
	// Delete is as that of a Tx.
	Delete(key []byte)
	// Depends has the commit of the chain fail with batchlog.ErrConflict, at once, if what r says was read has been written since. It can't be
	// used beside copies.
	Depends(r *Reads)
}

// A Commit is a commit from inside.
type Commit interface {
	// EachOp calls visit for each op in order, with stored keys and values, only of those that show, until it returns an error. What it is given
	// stays valid if the commit does.
	EachOp(visit func(kind wire.Kind, key, value []byte) error) error
	// Record is the commit as the log has it, without its meta, the ops included that do not show. It shares memory with the commit.
	Record() *wire.Record
	// Spans are ranges that hold all stored keys that the ops of a chain are on, also those that don't show; nil if the commit is no chain.
	Spans() []wire.KeyRange
}
