package local_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/wire"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A change of a task is not held for what a loser has read, as all others wait while a task is changed: the loser loses to it.
func TestChangeOfTaskIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := local.Open("db", &local.Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s, other := db.Space("s"), db.Space("other")
		tries, running := 0, make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := db.Update(t.Context(), func(tx *batchlog.Tx) error {
				tries++
				for _, err := range tx.Scan(s, batchlog.Range{}) {
					if err != nil {
						return err
					}
				}
				tx.Put(s, batchlog.K("sum"), nil)
				switch tries {
				case 1, 2, 3, 4:
					_, err := s.Put(t.Context(), batchlog.K("n"), nil)
					return err
				case 5:
					close(running)
				}
				time.Sleep(time.Second)
				return nil
			})
			done <- err
		}()
		<-running
		began := time.Now()
		changed := make(chan error, 1)
		go func() {
			_, err := db.Update(t.Context(), func(tx *batchlog.Tx) error {
				tx.Inside().Move(wire.TaskMove{Task: "task", Admin: true})
				tx.Put(s, batchlog.K("control"), nil)
				return nil
			})
			changed <- err
		}()
		synctest.Wait()
		if _, err := other.Put(t.Context(), batchlog.K("k"), nil); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > 100*time.Millisecond {
			t.Errorf("one who has nothing to do with it waited %s", waited)
		}
		if err := <-changed; err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil || tries != 6 {
			t.Errorf("%d tries: %v", tries, err)
		}
	})
}
