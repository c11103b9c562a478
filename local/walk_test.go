package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bytespace/batchlog"
)

// A walk finds what Get finds, however far the keys are apart.
func TestWalk(t *testing.T) {
	db := chainDB(t, Options{})
	s, rng := db.Space("a"), rand.New(rand.NewPCG(1, 1))
	var b batchlog.Batch
	for i := range 1000 {
		if rng.IntN(3) > 0 {
			b.Put(s, batchlog.Key(fmt.Sprintf("%04d", i)), bytes.Repeat([]byte("v"), rng.IntN(3)))
		}
	}
	if _, err := db.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	view, err := db.engine.View(t.Context(), batchlog.ReadOptions{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	stored := s.Stored()
	for range 50 {
		w := walk{view: view, high: append(bytes.Clone(stored), 0xff)}
		apart := 1 + rng.IntN(60)
		for i := rng.IntN(apart); i < 1100; i += rng.IntN(apart) { // also the same one again
			key := fmt.Appendf(bytes.Clone(stored), "%04d", i)
			want, err := view.Get(t.Context(), key)
			there := err == nil
			if err != nil && !errors.Is(err, batchlog.ErrNotFound) {
				t.Fatal(err)
			}
			got, err := w.get(t.Context(), key)
			if err != nil || (got != nil) != there || !bytes.Equal(got, want) {
				t.Fatalf("%s is %q, %t, %v; want %q, %t", key, got, got != nil, err, want, there)
			}
			if apart == 1 {
				i++
			}
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	}
}
