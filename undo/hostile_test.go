package undo_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/bytespace/batchlog/task"
	"github.com/bytespace/batchlog/undo"
)

// A badReader answers as it should not.
type badReader func(p []byte) (int, error)

func (r badReader) Read(p []byte) (int, error) { return r(p) }

// A badWriter as well.
type badWriter func(p []byte) (int, error)

func (w badWriter) Write(p []byte) (int, error) { return w(p) }

// errorOf is the error that an iteration ends with.
func errorOf[T any](seq func(yield func(T, error) bool)) (err error) {
	seq(func(_ T, e error) bool {
		err = e
		return e == nil
	})
	return err
}

const bad = "no \xff UTF-8"

// hostile is what the calls with bad arguments are made on.
type hostile struct {
	t        *testing.T
	db       *local.DB
	s, other *batchlog.Space
	id       batchlog.ID
	handle   func(context.Context, *task.Window) error
}

// Whatever a program hands in that can't be taken is an error: it neither ends the process, nor hangs, nor is taken as something else.
func TestHostileArguments(t *testing.T) {
	db := openUndo(t)
	s := db.Space("s")
	other := open(t, local.Options{}).Space("s")
	id, err := s.Put(t.Context(), batchlog.K("k"), []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutBlob(t.Context(), batchlog.K("blob"), strings.NewReader(strings.Repeat("x", 100_000))); err != nil {
		t.Fatal(err)
	}
	handle := func(context.Context, *task.Window) error { return nil }
	if err := task.Register(t.Context(), db.DB, task.Task{Name: "known", Handle: handle}); err != nil {
		t.Fatal(err)
	}
	h := &hostile{t, db, s, other, id, handle}
	cases := map[string]func(ctx context.Context) error{}
	for _, some := range []map[string]func(ctx context.Context) error{h.tasks(), h.readers(), h.writes(), h.undos()} {
		maps.Copy(cases, some)
	}
	for name, call := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				defer func() {
					if r := recover(); r != nil {
						t.Errorf("panic: %v", r)
						done <- errors.New("panic")
					}
				}()
				done <- call(ctx)
			}()
			select {
			case err := <-done:
				switch {
				case err == nil:
					t.Error("no error")
				case errors.Is(err, context.DeadlineExceeded):
					t.Error("nothing is said until the end of the context")
				case errors.Is(err, batchlog.ErrCorrupt):
					t.Errorf("told as damage: %v", err)
				case len(err.Error()) > 4096:
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			case <-time.After(15 * time.Second):
				t.Error("hangs")
			}
		})
	}
	if got, err := s.Get(t.Context(), batchlog.K("k")); err != nil || string(got) != "v" {
		t.Error("afterwards:", got, err)
	}
}

func (h *hostile) openBlob() *batchlog.Blob {
	b, err := h.s.Blob(h.t.Context(), batchlog.K("blob"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { b.Close() })
	return b
}

func (h *hostile) writing(b *batchlog.Batch) error { return second(h.db.Write(h.t.Context(), b)) }

func (h *hostile) chain(do func(c *batchlog.Chain)) error {
	c, err := h.db.Chain(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	do(c)
	return second(c.Commit(h.t.Context()))
}

func (h *hostile) update(do func(tx *batchlog.Tx) error) error {
	return second(h.db.Update(h.t.Context(), do))
}

func (h *hostile) read(r badReader) error {
	return second(h.s.PutBlob(h.t.Context(), batchlog.K("read"), r))
}

// tasks hands bad names and spaces to tasks.
func (h *hostile) tasks() map[string]func(ctx context.Context) error {
	db, s, other, id, handle := h.db, h.s, h.other, h.id, h.handle
	_, _, _, _, _ = db, s, other, id, handle
	return map[string]func(ctx context.Context) error{
		"run, name":       func(ctx context.Context) error { return task.Run(ctx, db.DB, task.Task{Name: bad, Handle: handle}) },
		"run, no name":    func(ctx context.Context) error { return task.Run(ctx, db.DB, task.Task{Handle: handle}) },
		"run, no handler": func(ctx context.Context) error { return task.Run(ctx, db.DB, task.Task{Name: "t"}) },
		"register, name": func(ctx context.Context) error {
			return task.Register(ctx, db.DB, task.Task{Name: bad, Handle: handle})
		},
		"register, long name": func(ctx context.Context) error {
			return task.Register(ctx, db.DB, task.Task{Name: strings.Repeat("x", 1<<20), Handle: handle})
		},
		"register, nil source": func(ctx context.Context) error {
			return task.Register(ctx, db.DB, task.Task{Name: "t", Source: []*batchlog.Space{nil}, Handle: handle})
		},
		"register, other's source": func(ctx context.Context) error {
			return task.Register(ctx, db.DB, task.Task{Name: "t", Source: []*batchlog.Space{other}, Handle: handle})
		},
		"register, bad space": func(ctx context.Context) error {
			return task.Register(ctx, db.DB, task.Task{Name: "t", Derives: []*batchlog.Space{db.Space(bad)}, Handle: handle})
		},
		"get":          func(ctx context.Context) error { return second(task.Get(ctx, db.DB, bad)) },
		"pause":        func(ctx context.Context) error { return task.Pause(ctx, db.DB, bad) },
		"resume":       func(ctx context.Context) error { return task.Resume(ctx, db.DB, bad) },
		"reset":        func(ctx context.Context) error { return task.Reset(ctx, db.DB, bad, batchlog.First()) },
		"plan reset":   func(ctx context.Context) error { return second(task.PlanReset(ctx, db.DB, bad, batchlog.First())) },
		"drop":         func(ctx context.Context) error { return task.Drop(ctx, db.DB, bad) },
		"let go":       func(ctx context.Context) error { return task.LetGo(ctx, db.DB, bad, "") },
		"parked":       func(ctx context.Context) error { return second(task.Parked(ctx, db.DB, bad)) },
		"retry parked": func(ctx context.Context) error { return second(task.RetryParked(ctx, db.DB, bad, 0)) },
		"get, long":    func(ctx context.Context) error { return second(task.Get(ctx, db.DB, strings.Repeat("x", 1<<20))) },
		"drop, long":   func(ctx context.Context) error { return task.Drop(ctx, db.DB, strings.Repeat("x", 1<<20)) },
		"explain":      func(ctx context.Context) error { return second(task.Explain(ctx, db.DB, nil)) },
	}
}

// readers hands bad readers, writers and references to blobs.
func (h *hostile) readers() map[string]func(ctx context.Context) error {
	db, s, other, id, handle := h.db, h.s, h.other, h.id, h.handle
	_, _, _, _, _ = db, s, other, id, handle
	return map[string]func(ctx context.Context) error{
		"reader, -1":         func(context.Context) error { return h.read(func([]byte) (int, error) { return -1, nil }) },
		"reader, -1 and end": func(context.Context) error { return h.read(func([]byte) (int, error) { return -1, io.EOF }) },
		"reader, too many":   func(context.Context) error { return h.read(func(p []byte) (int, error) { return len(p) + 1, nil }) },
		"reader, most":       func(context.Context) error { return h.read(func([]byte) (int, error) { return math.MaxInt, io.EOF }) },
		"reader, nothing":    func(context.Context) error { return h.read(func([]byte) (int, error) { return 0, nil }) },
		"reader, error": func(context.Context) error {
			return h.read(func([]byte) (int, error) { return 1, errors.New("broken") })
		},
		"reader, early": func(context.Context) error {
			return h.read(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })
		},
		"reader, nil": func(ctx context.Context) error { return second(s.PutBlob(ctx, batchlog.K("x"), nil)) },
		"writer, -1": func(context.Context) error {
			return second(h.openBlob().WriteTo(badWriter(func([]byte) (int, error) { return -1, nil })))
		},
		"writer, short": func(context.Context) error {
			return second(h.openBlob().WriteTo(badWriter(func([]byte) (int, error) { return 0, nil })))
		},
		"writer, too many": func(context.Context) error {
			return second(h.openBlob().WriteTo(badWriter(func(p []byte) (int, error) { return len(p) + 1, nil })))
		},
		"seek, before":       func(context.Context) error { return second(h.openBlob().Seek(-1, io.SeekStart)) },
		"seek, far before":   func(context.Context) error { return second(h.openBlob().Seek(math.MinInt64, io.SeekEnd)) },
		"seek, overflow":     func(context.Context) error { return second(h.openBlob().Seek(math.MaxInt64, io.SeekEnd)) },
		"seek, unknown":      func(context.Context) error { return second(h.openBlob().Seek(0, 7)) },
		"blob, read at -1":   func(context.Context) error { return second(h.openBlob().ReadAt(make([]byte, 5), -1)) },
		"blob, read at most": func(context.Context) error { return second(h.openBlob().ReadAt(make([]byte, 5), math.MaxInt64)) },
		"blob, reference":    func(ctx context.Context) error { return second(db.OpenBlob(ctx, batchlog.BlobRef{Size: -1})) },
		"blob, large": func(ctx context.Context) error {
			return second(db.OpenBlob(ctx, batchlog.BlobRef{Size: math.MaxInt64}))
		},
		"put reference": func(context.Context) error {
			var b batchlog.Batch
			b.PutRef(s, nil, batchlog.BlobRef{Size: -1})
			return h.writing(&b)
		},
		"put reference, tx": func(context.Context) error {
			return h.update(func(tx *batchlog.Tx) error { tx.PutRef(s, nil, batchlog.BlobRef{Size: -1}); return nil })
		},
		"put reference, more": func(context.Context) error {
			return h.chain(func(c *batchlog.Chain) { c.PutRef(s, nil, batchlog.BlobRef{Size: math.MaxInt64}) })
		},
	}
}

// writes hands bad text and spaces to what writes and reads.
func (h *hostile) writes() map[string]func(ctx context.Context) error {
	db, s, other, id, handle := h.db, h.s, h.other, h.id, h.handle
	_, _, _, _, _ = db, s, other, id, handle
	return map[string]func(ctx context.Context) error{
		"token":         func(context.Context) error { return h.writing(&batchlog.Batch{Token: bad}) },
		"label":         func(context.Context) error { return h.writing(&batchlog.Batch{Labels: map[string]string{bad: ""}}) },
		"label's value": func(context.Context) error { return h.writing(&batchlog.Batch{Labels: map[string]string{"": bad}}) },
		"chain's token": func(context.Context) error {
			return h.chain(func(c *batchlog.Chain) { c.Token = bad; c.Put(s, nil, nil) })
		},
		"chain's label": func(context.Context) error {
			return h.chain(func(c *batchlog.Chain) { c.Labels = map[string]string{bad: bad}; c.Put(s, nil, nil) })
		},
		"tx's label": func(context.Context) error {
			return h.update(func(tx *batchlog.Tx) error { tx.SetLabel(bad, bad); tx.Put(s, nil, nil); return nil })
		},
		"space":           func(ctx context.Context) error { return second(db.Space(bad).Put(ctx, nil, nil)) },
		"space, get":      func(ctx context.Context) error { return second(db.Space(bad).Get(ctx, nil)) },
		"space, scan":     func(ctx context.Context) error { return errorOf(db.Space(bad).Scan(ctx, batchlog.Range{})) },
		"space, tail":     func(ctx context.Context) error { return errorOf(db.Space(bad).Tail(ctx, batchlog.TailOptions{})) },
		"space, blob":     func(ctx context.Context) error { return second(db.Space(bad).Blob(ctx, nil)) },
		"space, put blob": func(ctx context.Context) error { return second(db.Space(bad).PutBlob(ctx, nil, strings.NewReader(""))) },
		"space, tx": func(context.Context) error {
			return h.update(func(tx *batchlog.Tx) error { return second(tx.Get(db.Space(bad), nil)) })
		},
		"space, tx put": func(context.Context) error {
			return h.update(func(tx *batchlog.Tx) error { tx.Put(db.Space(bad), nil, nil); return nil })
		},
		"space, chain": func(context.Context) error {
			return h.chain(func(c *batchlog.Chain) { c.Put(db.Space(bad), nil, nil) })
		},
		"space, copy": func(ctx context.Context) error { return second(db.CopyRange(ctx, db.Space(bad), s, batchlog.Range{})) },
		"space, move": func(ctx context.Context) error { return second(db.MoveRange(ctx, s, db.Space(bad), batchlog.Range{})) },
		"space, configure": func(ctx context.Context) error {
			return db.Configure(ctx, batchlog.LogConfig{Undo: true}, db.Space(bad))
		},
		"space, nil put": func(context.Context) error { var b batchlog.Batch; b.Put(nil, nil, nil); return h.writing(&b) },
		"space, nil tx": func(context.Context) error {
			return h.update(func(tx *batchlog.Tx) error { return second(tx.Get(nil, nil)) })
		},
		"space, nil tail": func(ctx context.Context) error {
			return errorOf(db.Tail(ctx, batchlog.TailOptions{Spaces: []*batchlog.Space{nil}}))
		},
		"space, nil copy": func(ctx context.Context) error { return second(db.CopyRange(ctx, nil, s, batchlog.Range{})) },
		"space, nil move": func(ctx context.Context) error { return second(db.MoveRange(ctx, s, nil, batchlog.Range{})) },
		"space, other's":  func(ctx context.Context) error { return second(db.CopyRange(ctx, s, other, batchlog.Range{})) },
		"nil configure":   func(ctx context.Context) error { return db.Configure(ctx, batchlog.LogConfig{Undo: true}, nil) },
		"log's name":      func(ctx context.Context) error { return db.Configure(ctx, batchlog.LogConfig{Name: bad}, s) },
		"log's time":      func(ctx context.Context) error { return db.Configure(ctx, batchlog.LogConfig{HotTTL: -time.Second}) },
		"log's bytes":     func(ctx context.Context) error { return db.Configure(ctx, batchlog.LogConfig{SegmentBytes: -1}) },
		"log's blobs":     func(ctx context.Context) error { return db.Configure(ctx, batchlog.LogConfig{BlobBytes: -1}) },
		"key of a key":    func(context.Context) error { return second(batchlog.KeyOf(bad)) },
		"key of a func":   func(context.Context) error { return second(batchlog.KeyOf(func() {})) },
		"range's ends": func(context.Context) error {
			var b batchlog.Batch
			b.DeleteRange(s, batchlog.Range{High: make([]byte, 1<<20)})
			return h.writing(&b)
		},
	}
}

// undos hands bad commits and spaces to package undo.
func (h *hostile) undos() map[string]func(ctx context.Context) error {
	db, s, other, id, handle := h.db, h.s, h.other, h.id, h.handle
	_, _, _, _, _ = db, s, other, id, handle
	return map[string]func(ctx context.Context) error{
		"undo, none":      func(ctx context.Context) error { return second(undo.Undo(ctx, db.DB, 0, undo.Options{})) },
		"undo, most":      func(ctx context.Context) error { return second(undo.Undo(ctx, db.DB, math.MaxUint64, undo.Options{})) },
		"undo, token":     func(ctx context.Context) error { return second(undo.Undo(ctx, db.DB, id, undo.Options{Token: bad})) },
		"redo, most":      func(ctx context.Context) error { return second(undo.Redo(ctx, db.DB, math.MaxUint64, undo.Options{})) },
		"to, most":        func(ctx context.Context) error { return second(undo.To(ctx, db.DB, math.MaxUint64, undo.Options{})) },
		"show, none":      func(ctx context.Context) error { return errorOf(undo.Show(ctx, db.DB, 0)) },
		"show, most":      func(ctx context.Context) error { return errorOf(undo.Show(ctx, db.DB, math.MaxUint64)) },
		"diff, most":      func(ctx context.Context) error { return second(undo.Diff(ctx, db.DB, math.MaxUint64, 0)) },
		"diff, bad space": func(ctx context.Context) error { return second(undo.Diff(ctx, db.DB, 0, id, db.Space(bad))) },
		"diff, nil space": func(ctx context.Context) error { return second(undo.Diff(ctx, db.DB, 0, id, nil)) },
		"history, bad":    func(ctx context.Context) error { return errorOf(undo.History(ctx, db.DB, db.Space(bad), nil)) },
		"history, nil":    func(ctx context.Context) error { return errorOf(undo.History(ctx, db.DB, nil, nil)) },
	}
}
