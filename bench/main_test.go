package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test a child of itself where a mode needs one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// Each mode runs at a tiny size, prints a report, and leaves nothing behind. Whether its floors hold says nothing then.
func TestModes(t *testing.T) {
	for _, args := range []string{
		"write -peers batchlog,pebble -writers 1,4 -ops 1 -rounds 2 -warmup 10ms -duration 50ms -settle 0",
		"get -keys 3000 -loaded-keys 2000 -duration 100ms -slice 5ms",
		"ryw -writers 1,2 -rounds 1 -duration 50ms",
		"tail -commits 50 -rounds 2 -writers 4",
		"catchup -commits 3000 -rounds 1 -writers 32 -jetstream 100",
		"replay -tail 2000 -history 1000 -factor 2 -rounds 1",
		"memory -commits 2000 -factor 2",
		"allocs -writes 100",
		"chain -gb 0.003 -idle 50ms -full-cache=false",
		"copy -keys 20000 -rounds 1",
		"blob -mb 3 -rounds 2",
		"undo -writers 1,2 -keys 500 -rounds 1 -warmup 10ms -duration 50ms -settle 0 -revert-keys 20000 -revert-rounds 1 -undos 20",
	} {
		name, _, _ := strings.Cut(args, " ")
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := decodeReport(t, strings.Fields(args+" -json -dir "+dir))
			if r.Mode != name || len(r.Checks) == 0 || r.Machine.Cores == 0 {
				t.Errorf("report: %+v", r)
			}
			for _, c := range r.Checks {
				if c.Got == 0 && c.Unit != "MB" && c.Unit != "µs" {
					t.Errorf("%s: nothing was measured", c.What)
				}
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// Every peer writes, in this process and durably as it says; what is counted is plausible.
func TestPeers(t *testing.T) {
	for _, p := range allPeers() {
		t.Run(p.name, func(t *testing.T) {
			spec := cellSpec{Peer: p.name, Writers: 2, Ops: 3, Warmup: 5 * time.Millisecond, Duration: 50 * time.Millisecond, Dir: t.TempDir()}
			c, err := runCell(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if c.Acked < 10 || c.Applied < 10 || c.P50 <= 0 || c.P99 < c.P50 || c.PeakRSS == 0 {
				t.Errorf("%+v", c)
			}
			// A closed loop of two: a write takes about two writers' share of a second.
			if most := 2 * time.Second.Seconds() / c.Acked; c.P50.Seconds() > 3*most {
				t.Errorf("%v batches/s of 2 writers, but half of them took more than %s", c.Acked, c.P50)
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"nonsense", `no mode "nonsense"`},
		{"get more", `what is "more"`},
		{"write -peers pebble,rocks -json", `no peer "rocks"`},
		{"write -writers 0 -json", `"0" in "0" is not a number`},
		{"child", "child: what?"},
	} {
		t.Chdir(t.TempDir())
		err := command(t.Context(), strings.Fields(tt.args), nil, new(bytes.Buffer), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
	var out bytes.Buffer
	if err := command(t.Context(), []string{"help"}, nil, &out, nil); err != nil || !strings.Contains(out.String(), "catchup") {
		t.Errorf("help: %v\n%s", err, &out)
	}
}

func decodeReport(t *testing.T, args []string) report {
	t.Helper()
	var out, log bytes.Buffer
	if err := command(t.Context(), args, nil, &out, &log); err != nil && !errors.Is(err, errFloor) {
		t.Fatalf("%v\n%s", err, &log)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return r
}

// A commit of the benchmark takes the bytes that commitBytes says.
func TestCommitBytes(t *testing.T) {
	target, err := openBatchlog(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := target.close(); err != nil {
			t.Error(err)
		}
	}()
	db := target.(*batchlogTarget).db
	write := target.writer(0)
	const n = 100
	g := newGenerator(1, 1)
	for range n {
		if err := write(t.Context(), g.next()); err != nil {
			t.Fatal(err)
		}
	}
	st, err := db.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const recordHead = 24 + 1 + 1
	size := 0
	for c, err := range db.Tail(t.Context(), tailAll(st.Head)) {
		if err != nil {
			t.Fatal(err)
		}
		size += recordHead + c.Size()
	}
	if size != n*commitBytes || commitBytes != 150 {
		t.Errorf("%d commits take %d bytes, want %d each", n, size, commitBytes)
	}
	// On disk each has the header of a group of its own as well, and starts at a multiple of 8.
	if low, high := int64(size), int64(n*(commitBytes+40+8)+4096); st.Logs[0].Bytes < low || st.Logs[0].Bytes > high {
		t.Errorf("the log takes %d bytes, want %d to %d", st.Logs[0].Bytes, low, high)
	}
}

// Pairs ascend as they are numbered, shuffled they are the same ones, and an external sort brings them back in order.
func TestPairs(t *testing.T) {
	k, v := make([]byte, keyBytes), make([]byte, valueBytes)
	for _, n := range []uint64{1, 2, 3, 1000, 4096, 300_000} {
		p := newPairs(n)
		seen := make([]bool, n)
		for i := range n {
			if j := p.shuffled(i); seen[j] {
				t.Fatalf("%d pairs: %d comes twice", n, j)
			} else {
				seen[j] = true
			}
		}
		runs, err := sortRuns(t.Context(), filepath.Join(t.TempDir(), "runs"), p)
		if err != nil {
			t.Fatal(err)
		}
		var last []byte
		for i := range n {
			p.fill(i, k, v)
			key, value, err := runs.next()
			if err != nil || !bytes.Equal(key, k) || !bytes.Equal(value, v) || bytes.Compare(k, last) <= 0 {
				t.Fatalf("pair %d of %d: %x %x %v", i, n, key, value, err)
			}
			last = append(last[:0], k...)
		}
		if _, _, err := runs.next(); !errors.Is(err, io.EOF) {
			t.Errorf("behind the last pair: %v", err)
		}
		runs.close()
	}
}

func TestKeysAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	k := make([]byte, keyBytes)
	for n := range uint64(50_000) {
		putKey(k, n)
		if seen[string(k)] {
			t.Fatalf("key %d came before", n)
		}
		seen[string(k)] = true
	}
	a, b := newGenerator(1, 2), newGenerator(2, 2)
	one, two := fmt.Sprintf("%x", a.next()), fmt.Sprintf("%x", b.next())
	if again := fmt.Sprintf("%x", newGenerator(1, 2).next()); one == two || one != again || one == fmt.Sprintf("%x", a.next()) {
		t.Error("a generator's ops come from its seed, and differ each time")
	}
}
