// Package batchlog is an ordered, namespaced key-value store whose write-ahead log is the product.
//
// Every write is a [Batch]: puts, deletes and range deletes over any spaces, kept together or not
// at all. A batch that is written becomes a [Commit] with an [ID] (1, 2, 3 … without holes) in a
// durable log. Commits are applied to the store right after, in the order of their ids; reads are
// held until the store has reached the commit that was newest when they arrived, so whoever reads
// after a write was acknowledged sees it. Anyone may follow the log from any point with [DB.Tail].
//
//	db, err := local.Open("data", nil)     // package local: an engine in a directory
//	users := db.Space("users", "eu")       // a namespace and a capability
//	id, err := users.Put(ctx, batchlog.K("alice"), []byte("…"))
//	for c, err := range users.Tail(ctx, batchlog.TailOptions{From: batchlog.After(id)}) { … }
//
// This package holds the words (ID, Key, Op, Batch, Commit), the front that programs call (DB, Space,
// Tx, View) and the waist, [Engine]: what an engine must be able to do for the front to stand on it.
// Package local has the engine that lives in a directory.
//
// Keys and values that are handed out belong to the caller and are safe to keep, but must not be
// changed. Those of one scan or one tail may share a piece of memory of up to [MaxShared] bytes, which
// stays as long as one of them does; bytes.Clone what is kept for long from a long iteration.
package batchlog
