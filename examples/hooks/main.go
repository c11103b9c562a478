// Hooks shows checks that hang on spaces: a unique index, a foreign key and a balance that stays above zero, whoever writes, and by what way.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "batchlog-hooks-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := local.Open(filepath.Join(dir, "data"), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	users, byName, accounts := db.Space("users"), db.Space("users by name"), db.Space("accounts")
	uniqueNames(db, users, byName)
	ownersExist(db, accounts, users)
	neverBelowZero(db, accounts)

	// A post-commit hook is told of what came of it.
	told := make(chan batchlog.ID, 10)
	remove := db.PostCommit(users, func(c *batchlog.Commit) { told <- c.ID })
	defer remove()

	show := func(what string, id batchlog.ID, err error) {
		var refused *batchlog.HookError
		if errors.As(err, &refused) {
			fmt.Printf("%s: refused, space %s, key %s: %s\n", what, refused.Space, refused.Key, refused.Reason)
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: commit %d\n", what, id)
	}
	id, err := users.Put(ctx, batchlog.K(1), []byte("ada"))
	show("user 1 is ada", id, err)
	id, err = users.Put(ctx, batchlog.K(2), []byte("ada"))
	show("user 2 is ada, too", id, err)
	id, err = users.Put(ctx, batchlog.K(1), []byte("bea"))
	show("user 1 is bea now", id, err)
	id, err = users.Put(ctx, batchlog.K(2), []byte("ada"))
	show("user 2 is ada", id, err)
	id, err = accounts.Put(ctx, batchlog.K(1), []byte("100"))
	show("an account of user 1", id, err)
	id, err = accounts.Put(ctx, batchlog.K(7), []byte("100"))
	show("an account of user 7", id, err)
	id, err = accounts.Put(ctx, batchlog.K(1), []byte("-20"))
	show("20 below zero", id, err)
	id, err = users.Delete(ctx, batchlog.K(1))
	show("user 1 goes", id, err)
	fmt.Println("told of commits", <-told, <-told, <-told)
	return nil
}

// uniqueNames keeps byName an index of users by their name, in which every name is once.
func uniqueNames(db *local.DB, users, byName *batchlog.Space) {
	db.PreCommit(users, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind == batchlog.OpDeleteRange {
				return batchlog.Refuse(op, "delete users one by one")
			}
			was, err := tx.Before(users, op.Key) // what the commit overwrites
			if err == nil {
				tx.Delete(byName, batchlog.K(string(was)))
			} else if !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			if op.Kind == batchlog.OpDelete {
				continue
			}
			name := batchlog.K(string(op.Value))
			if _, err := tx.Get(byName, name); err == nil {
				return batchlog.Refuse(op, "the name is taken")
			} else if !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
			tx.Put(byName, name, op.Key)
		}
		return nil
	})
}

// ownersExist has each account belong to a user: none is opened without one, and no user goes who has one. The key is the same in both.
func ownersExist(db *local.DB, accounts, users *batchlog.Space) {
	db.PreCommit(accounts, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpPut {
				continue
			}
			if _, err := tx.Get(users, op.Key); errors.Is(err, batchlog.ErrNotFound) {
				return batchlog.Refuse(op, "there is no such user")
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	db.PreCommit(users, func(tx *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpDelete {
				continue // ranges of users are refused by uniqueNames
			}
			if _, err := tx.Get(accounts, op.Key); err == nil {
				return batchlog.Refuse(op, "the user has an account")
			} else if !errors.Is(err, batchlog.ErrNotFound) {
				return err
			}
		}
		return nil
	})
}

// neverBelowZero refuses a balance below zero.
func neverBelowZero(db *local.DB, accounts *batchlog.Space) {
	db.PreCommit(accounts, func(_ *batchlog.Tx, ops []batchlog.Op) error {
		for _, op := range ops {
			if op.Kind != batchlog.OpPut {
				continue
			}
			n, err := strconv.Atoi(string(op.Value))
			if err != nil {
				return batchlog.Refuse(op, "not a number")
			}
			if n < 0 {
				return batchlog.Refuse(op, "the balance would be below zero")
			}
		}
		return nil
	})
}
