// Undo is the undo of an editor that two people use: each takes back what he has done himself, others' work stays, and where they have written the same line the
// editor is told who did. Then a bad deployment is taken back as a whole.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/undo"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "batchlog-undo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// From now on the database keeps what commits overwrite.
	db, err := local.Open(dir, &local.Options{Log: batchlog.LogConfig{Undo: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, step := range []func(context.Context, *local.DB) error{edit, conflict, goBack, look} {
		if err := step(ctx, db); err != nil {
			return err
		}
	}
	return nil
}

// write sets a line of the document, as one of its users.
func write(ctx context.Context, db *local.DB, user string, line int, text string) error {
	b := batchlog.Batch{Labels: map[string]string{"user": user}}
	b.Put(db.Space("doc"), batchlog.K(line), []byte(text))
	_, err := db.Write(ctx, &b)
	return err
}

// show prints the document.
func show(ctx context.Context, db *local.DB, when string) error {
	fmt.Printf("%s:", when)
	for e, err := range db.Space("doc").Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return err
		}
		fmt.Printf(" %s", e.Value)
	}
	fmt.Println()
	return nil
}

// edit has both write, and Ada take back her last line and bring it back, whatever Bob does meanwhile.
func edit(ctx context.Context, db *local.DB) error {
	err := errors.Join(
		write(ctx, db, "ada", 1, "Roses"),
		write(ctx, db, "ada", 2, "are read"),
		write(ctx, db, "bob", 3, "violets"),
		show(ctx, db, "written"),
	)
	if err != nil {
		return err
	}
	ada := undo.Stack(db.DB, "user", "ada")
	if _, err := ada.Undo(ctx); err != nil {
		return err
	}
	if err := show(ctx, db, "ada's undo"); err != nil {
		return err
	}
	if _, err := ada.Redo(ctx); err != nil {
		return err
	}
	return show(ctx, db, "ada's redo")
}

// conflict has Bob correct a line of Ada's, who then can't take it back.
func conflict(ctx context.Context, db *local.DB) error {
	if err := write(ctx, db, "bob", 2, "are red"); err != nil {
		return err
	}
	ada, bob := undo.Stack(db.DB, "user", "ada"), undo.Stack(db.DB, "user", "bob")
	_, err := ada.Undo(ctx)
	var conflict *undo.ConflictError
	if !errors.As(err, &conflict) {
		return fmt.Errorf("no conflict: %w", err)
	}
	for _, c := range conflict.Conflicts {
		by, err := undo.Commit(ctx, db.DB, c.ID)
		if err != nil {
			return err
		}
		fmt.Printf("ada's undo: %s has changed line %s since\n", by.Labels["user"], c.Key)
	}
	if _, err := bob.Undo(ctx); err != nil { // then it is hers again
		return err
	}
	if _, err := ada.Undo(ctx); err != nil {
		return err
	}
	return show(ctx, db, "bob's undo, then ada's")
}

// goBack brings back the whole document as it was, in one commit, and takes that back.
func goBack(ctx context.Context, db *local.DB) error {
	good, err := db.Head(ctx)
	if err != nil {
		return err
	}
	var b batchlog.Batch
	b.DeleteRange(db.Space("doc"), batchlog.Range{})
	b.Put(db.Space("doc"), batchlog.K("banner"), []byte("BUY NOW"))
	if _, err := db.Write(ctx, &b); err != nil {
		return err
	}
	if err := show(ctx, db, "a bad deployment"); err != nil {
		return err
	}
	back, err := undo.To(ctx, db.DB, good, undo.Options{Space: db.Space("doc"), Labels: map[string]string{"why": "complaints"}})
	if err != nil {
		return err
	}
	if err := show(ctx, db, "as it was"); err != nil {
		return err
	}
	id, err := undo.Undo(ctx, db.DB, back, undo.Options{}) // that is a commit like any
	if err != nil {
		return err
	}
	if err := show(ctx, db, "back again"); err != nil {
		return err
	}
	_, err = undo.Redo(ctx, db.DB, id, undo.Options{})
	return err
}

// look shows what a commit has changed, and what a line has been.
func look(ctx context.Context, db *local.DB) error {
	for c, err := range undo.Show(ctx, db.DB, 6) {
		if err != nil {
			return err
		}
		fmt.Printf("commit 6: line %s was %q, became %q\n", c.Key, c.Old.Bytes, c.New.Bytes)
	}
	for v, err := range undo.History(ctx, db.DB, db.Space("doc"), batchlog.K(2)) {
		if err != nil {
			return err
		}
		if v.Value.Exists {
			fmt.Printf("line 2, commit %d: %q\n", v.ID, v.Value.Bytes)
		} else {
			fmt.Printf("line 2, commit %d: deleted\n", v.ID)
		}
	}
	return nil
}
