package local_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/rpc"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/waist"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A served is an engine behind a network connection, as far as chains need one. It has one chain.
type served struct {
	engine batchlog.Engine
	stage  batchlog.Stage
}

// nothing is what a call has no need of; net/rpc wants exported or predeclared types.
type nothing = bool

func (s *served) Chain(nothing, *nothing) (err error) {
	s.stage, err = s.engine.(batchlog.Chainer).Chain(context.Background())
	return err
}

func (s *served) Copy(c *waist.RangeCopy, _ *nothing) error {
	return s.stage.Copy(context.Background(), *c)
}

func (s *served) Revert(r *waist.Revert, _ *nothing) error {
	return s.stage.Revert(context.Background(), *r)
}

func (s *served) Commit(p *waist.Proposal, id *batchlog.ID) (err error) {
	*id, err = s.stage.Commit(context.Background(), p)
	return err
}

func (s *served) Close(nothing, *nothing) error { return s.stage.Close() }

// A dialed is the engine at the other end: it has nothing but the connection, so that a call that is not sent over it has nowhere to go.
type dialed struct {
	batchlog.Engine // nil
	client          *rpc.Client
}

func (d dialed) call(method string, args, reply any) error {
	return d.client.Call("Engine."+method, args, reply)
}

func (d dialed) Chain(context.Context) (batchlog.Stage, error) {
	return dialedStage{d}, d.call("Chain", false, new(nothing))
}

func (d dialed) Chains(context.Context) ([]batchlog.ChainStatus, error) {
	return nil, batchlog.ErrUnsupported
}

func (d dialed) SweepChains(context.Context, time.Duration) (int, int64, error) {
	return 0, 0, batchlog.ErrUnsupported
}

type dialedStage struct{ dialed dialed }

func (s dialedStage) Add(context.Context, []byte, int, int) error {
	return fmt.Errorf("ops are sent: %w", batchlog.ErrUnsupported)
}

func (s dialedStage) Copy(_ context.Context, c waist.RangeCopy) error {
	return s.dialed.call("Copy", &c, new(nothing))
}

func (s dialedStage) Revert(_ context.Context, r waist.Revert) error {
	return s.dialed.call("Revert", &r, new(nothing))
}

func (s dialedStage) Commit(_ context.Context, p *waist.Proposal) (id batchlog.ID, err error) {
	err = s.dialed.call("Commit", p, &id)
	return id, err
}

func (s dialedStage) Close() error { return s.dialed.call("Close", false, new(nothing)) }

func (s dialedStage) Progress(func(batchlog.ChainProgress)) {}

// A counted connection counts what goes over it, both ways.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// overNetwork has work done by a database whose engine is at the other end of a TCP connection, and returns how many bytes that took.
func overNetwork(t *testing.T, engine batchlog.Engine, work func(db *batchlog.DB) error) int64 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Engine", &served{engine: engine}); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		server.ServeConn(conn)
	})
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var bytes atomic.Int64
	client := rpc.NewClient(counted{conn, &bytes})
	if err := work(batchlog.New(dialed{client: client})); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(client.Close(), listener.Close()); err != nil {
		t.Error(err)
	}
	serving.Wait()
	return bytes.Load()
}

// What goes over the network for a copy, a move or a revert is the same, to the byte, whatever the number of keys.
func TestCopiesOverNetwork(t *testing.T) {
	passed := func(keys int, want map[string]int, work func(db *batchlog.DB, dst, src *batchlog.Space) error) (bytes int64) {
		t.Helper()
		db, err := local.Open("db", &local.Options{FS: vfs.NewMem(), Log: batchlog.LogConfig{Undo: true}})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var b batchlog.Batch
		for i := range keys {
			b.Put(db.Space("src"), batchlog.K(i), make([]byte, 100))
		}
		if _, err := db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		bytes = overNetwork(t, db.Inside().Engine(), func(front *batchlog.DB) error {
			return work(front, front.Space("dst"), front.Space("src"))
		})
		left := map[string]int{} // times that all keys are there
		for _, s := range []string{"src", "dst"} {
			n := 0
			for _, err := range db.Space(s).Scan(t.Context(), batchlog.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			left[s] = n / keys
			if n%keys != 0 {
				t.Errorf("%d keys of %d in %s", n, keys, s)
			}
		}
		if !maps.Equal(left, want) {
			t.Errorf("all keys are there so often: %v, want %v", left, want)
		}
		return bytes
	}
	for name, c := range map[string]struct {
		want map[string]int
		work func(db *batchlog.DB, dst, src *batchlog.Space) error
	}{
		"copy": {map[string]int{"src": 1, "dst": 1}, func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.CopyRange(t.Context(), dst, src, batchlog.Range{})
			return err
		}},
		"move": {map[string]int{"src": 0, "dst": 1}, func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.MoveRange(t.Context(), dst, src, batchlog.Range{})
			return err
		}},
		"tree": {map[string]int{"src": 1, "dst": 1}, func(db *batchlog.DB, dst, src *batchlog.Space) error {
			_, err := db.CopyTree(t.Context(), dst, src)
			return err
		}},
		"revert": {map[string]int{"src": 0, "dst": 0}, func(db *batchlog.DB, dst, src *batchlog.Space) error {
			c, err := db.Chain(t.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Revert(db.Root(), 0); err != nil {
				return err
			}
			_, err = c.Commit(t.Context())
			return err
		}},
	} {
		few, many := passed(10, c.want, c.work), passed(20_000, c.want, c.work)
		t.Logf("%s: %d bytes for 10 keys, %d for 20,000", name, few, many)
		if few != many || few == 0 {
			t.Errorf("%s: %d bytes for few keys, %d for many", name, few, many)
		}
	}
}
