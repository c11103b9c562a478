// Transfer moves money between accounts from many goroutines at once. No cent is lost, and no account goes below zero, as
// every transfer reads and writes as one serializable transaction.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strconv"
	"sync"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

const accounts, each = 4, 100

var errFunds = errors.New("not enough on the account")

func run(ctx context.Context) error {
	db, err := local.Open("bank", &local.Options{FS: vfs.NewMem()})
	if err != nil {
		return err
	}
	defer db.Close()
	bank := db.Space("accounts")
	var b batchlog.Batch
	for n := range accounts {
		b.Put(bank, batchlog.K(n), []byte(strconv.Itoa(each)))
	}
	if _, err := db.Write(ctx, &b); err != nil {
		return err
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for n := range 40 {
		wg.Go(func() {
			err := transfer(ctx, db.DB, bank, n%accounts, (n+1)%accounts, 30)
			if err != nil && !errors.Is(err, errFunds) {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}

	total := 0
	for e, err := range bank.Scan(ctx, batchlog.Range{}) {
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return err
		}
		if n < 0 {
			return fmt.Errorf("account %s is at %d", e.Key, n)
		}
		total += n
	}
	fmt.Println("total", total)
	return nil
}

func transfer(ctx context.Context, db *batchlog.DB, bank *batchlog.Space, from, to, amount int) error {
	_, err := db.Update(ctx, func(tx *batchlog.Tx) error {
		balance := func(n int) (int, error) {
			value, err := tx.Get(bank, batchlog.K(n))
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(string(value))
		}
		a, err := balance(from)
		if err != nil {
			return err
		}
		b, err := balance(to)
		if err != nil {
			return err
		}
		if a < amount {
			return errFunds
		}
		tx.Put(bank, batchlog.K(from), []byte(strconv.Itoa(a-amount)))
		tx.Put(bank, batchlog.K(to), []byte(strconv.Itoa(b+amount)))
		return nil
	})
	return err
}
