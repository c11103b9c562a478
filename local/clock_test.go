package local

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const day = 24 * time.Hour

// What is counted between two looks at the clocks.
func TestClockCounts(t *testing.T) {
	const start = int64(1_700_000_000_000_000)
	for _, c := range []struct {
		name          string
		wall          time.Duration // how far the wall went
		boot          string
		up            time.Duration // to where the other clock went, from an hour
		off           time.Duration // in doubt before
		passed, doubt time.Duration
	}{
		{"both agree", time.Hour, "a", 2 * time.Hour, 0, time.Hour, 0},
		{"the machine slept", 10 * time.Hour, "a", 11 * time.Hour, 0, 10 * time.Hour, 0},
		{"the wall is set a little", time.Hour + 30*time.Second, "a", 2 * time.Hour, 0, time.Hour, 0},
		{"the wall jumps ahead", 3650 * day, "a", 2 * time.Hour, 0, time.Hour, 3650*day - time.Hour},
		{"the wall goes back", -3650 * day, "a", 2 * time.Hour, 0, time.Hour, -3650*day - time.Hour},
		{"it comes back from ahead", -3650 * day, "a", 2 * time.Hour, 3650*day + time.Hour, time.Hour, 0},
		{"the machine was off", 3 * day, "b", time.Minute, 0, 3 * day, 0},
		{"the machine was off for years, or the wall is wrong", 1000 * day, "b", time.Minute, 0, 0, 1000 * day},
		{"the wall began at 1970", -20000 * day, "b", time.Minute, 0, 0, -20000 * day},
		{"the wall had gone back, and is right again", 12 * day, "b", time.Minute, -10 * day, 2 * day, 0},
		{"another machine, which has been on for longer", time.Minute, "b", 1000 * day, 0, time.Minute, 0},
		{"a machine that was restored to an earlier moment", time.Minute, "a", time.Minute, 0, time.Minute, 0},
		{"nothing but the wall is known", 5 * day, "", 0, 0, 5 * day, 0},
	} {
		n := count{Passed: start, Wall: start, Boot: "a", Up: time.Hour.Microseconds(), Off: c.off.Microseconds()}
		n.look(start+c.wall.Microseconds(), c.boot, c.up.Microseconds(), offMost)
		if passed, doubt := micros(n.Passed-start), micros(n.Off); passed != c.passed || doubt != c.doubt {
			t.Errorf("%s: counted %s, in doubt %s; want %s and %s", c.name, passed, doubt, c.passed, c.doubt)
		}
	}
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// A machine has a true time, a clock on its wall that is wrong by some time, and one that nobody sets.
type machine struct {
	rng   *rand.Rand
	at    time.Duration // the true time
	wrong time.Duration // of the wall
	boot  int
	upAt  time.Duration // the true time when it was booted
}

var machineStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (m *machine) now() time.Time { return machineStart.Add(m.at + m.wrong) }
func (m *machine) uptime() (string, time.Duration) {
	return fmt.Sprint(m.boot), m.at - m.upAt
}

// jump sets the wall, to any time.
func (m *machine) jump() {
	if m.wrong != 0 && m.rng.IntN(2) == 0 {
		m.wrong = 0
		return
	}
	m.wrong = time.Duration(m.rng.Int64N(int64(20*365*day))) / time.Duration(1+m.rng.IntN(10000))
	if m.rng.IntN(2) == 0 {
		m.wrong = -m.wrong
	}
}

// Under clocks that jump, machines and processes that end at any time, and files that are lost with them, no more is ever counted than has
// passed, but where a machine was off and its wall came up ahead by what it may have been off for. What runs is counted, so that
// what is kept for a time is dropped that time after.
func TestClockProgram(t *testing.T) {
	seeds := 3000
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		clockProgram(t, uint64(seed))
	}
}

func clockProgram(t *testing.T, seed uint64) {
	m := &machine{rng: rand.New(rand.NewPCG(seed, 0xc10c))}
	fs := vfs.NewMem()
	check(t, fs.MkdirAll("db", 0o755))
	var trace []string
	var c *clock
	var known int64 // the newest stamp that the log has
	open := func() {
		c = newClock(&Options{Now: m.now, Uptime: m.uptime, Logger: discard})
		c.open(fs, "db")
		c.start(known, 0)
	}
	open()
	first := c.passed()
	// over is how much more was counted than has passed.
	over := func() time.Duration { return micros(c.passed()-first) - m.at }
	type saved struct{ over, wrong time.Duration }
	var file, stamp saved
	var written count
	step := 0
	atMost := func(most time.Duration) {
		t.Helper()
		if got := over(); got > most+time.Second {
			t.Fatalf("seed %d, step %d: %s more counted than have passed, at most %s should\n%s", seed, step, got, most, strings.Join(trace, "\n"))
		}
	}
	save := func() {
		check(t, c.save(fs, "db"))
		file = saved{over(), m.wrong}
	}
	save()
	for ; step < 60; step++ {
		before := over()
		switch m.rng.IntN(7) {
		case 0, 1, 2:
			m.at += time.Duration(m.rng.Int64N(int64(3 * day)))
			trace = append(trace, "runs")
			atMost(before)
			if over() < before-time.Second {
				t.Fatalf("seed %d, step %d: %s of what has passed was not counted\n%s", seed, step, before-over(), strings.Join(trace, "\n"))
			}
		case 3:
			m.jump()
			trace = append(trace, "jumps to "+m.wrong.String())
			atMost(before)
		case 4, 5: // the process starts again, or the machine does
			if m.rng.IntN(2) == 0 {
				save()
			}
			what := "process"
			m.at += time.Duration(m.rng.Int64N(int64(day)))
			if m.rng.IntN(2) == 0 {
				m.at += time.Duration(m.rng.Int64N(int64(90 * day)))
				m.boot, m.upAt, what = m.boot+1, m.at, "machine"
			}
			if m.rng.IntN(3) == 0 {
				m.jump()
			}
			trace = append(trace, what+" starts again, wrong by "+m.wrong.String())
			believed := time.Duration(0)
			if c.mu.saved.Boot != fmt.Sprint(m.boot) {
				believed = min(max(m.wrong-file.wrong, 0), offMost)
			}
			open()
			atMost(max(file.over+believed, stamp.over))
		case 6:
			known, stamp = c.passed(), saved{over: over()}
			check(t, c.tend(fs, "db", 10*day))
			if c.mu.saved != written {
				written, file = c.mu.saved, saved{over(), m.wrong}
			}
		}
	}
}

// A clockDB is a database on a machine.
type clockDB struct {
	*DB
	t   *testing.T
	o   Options
	mem vfs.FS

	ahead, up atomic.Int64 // of the wall, and of the other clock
	warnings  strings.Builder
}

func openClock(t *testing.T) *clockDB {
	d := &clockDB{t: t, mem: vfs.NewMem()}
	d.o = Options{
		FS: d.mem, Logger: slog.New(slog.NewTextHandler(&d.warnings, nil)),
		Now:    func() time.Time { return machineStart.Add(time.Duration(d.ahead.Load() + d.up.Load())) },
		Uptime: func() (string, time.Duration) { return "boot", time.Duration(d.up.Load()) },
		Log:    batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: time.Hour},
	}
	d.DB = openAt(t, &d.o)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

// pass lets time pass, and trims until the log begins behind want, or once if that is 0. It returns the oldest commit.
func (d *clockDB) pass(by time.Duration, want batchlog.ID) batchlog.ID {
	d.t.Helper()
	d.up.Add(int64(by))
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		check(d.t, d.Trim(d.t.Context()))
		st := d.status()
		if st.Oldest > want {
			return st.Oldest
		}
		if time.Since(began) > 10*time.Second {
			d.t.Fatalf("the log begins with commit %d, not behind %d: %+v", st.Oldest, want, st)
		}
	}
}

func (d *clockDB) status() batchlog.Status {
	d.t.Helper()
	st, err := d.Status(d.t.Context())
	check(d.t, err)
	return st
}

func (d *clockDB) fill(n int) batchlog.ID {
	d.t.Helper()
	id := batchlog.ID(0)
	for i := range n {
		var err error
		id, err = d.Root().Put(d.t.Context(), batchlog.K(i), make([]byte, 1000))
		check(d.t, err)
		d.up.Add(int64(time.Second))
	}
	check(d.t, d.Flush(d.t.Context()))
	for began := time.Now(); ; time.Sleep(time.Millisecond) { // all but the active one are sealed
		if n, _, _ := d.engine.log.Expired(d.engine.clock.time().Add(1000*day), 1); n == d.status().Logs[0].Segments-1 {
			return id
		}
		if time.Since(began) > 10*time.Second {
			d.t.Fatal("not sealed")
		}
	}
}

// One commit while the clock is ten years ahead neither drops what is young, nor keeps for ten years what is old; and it is told.
func TestClockJumps(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopened %t", reopen), func(t *testing.T) {
			d := openClock(t)
			again := func() {
				if reopen {
					check(t, d.Close())
					d.DB = openAt(t, &d.o)
				}
			}
			first := d.fill(40)
			d.ahead.Store(int64(3650 * day))
			again()
			jumped := d.fill(40)
			if oldest := d.pass(0, 0); oldest != 1 {
				t.Fatalf("the log begins with commit %d while the clock is ahead", oldest)
			}
			if st := d.status(); st.Clock == nil || st.Clock.Off != 3650*day {
				t.Errorf("status says of the clock %+v", st.Clock)
			}
			if !strings.Contains(d.warnings.String(), "clock has jumped") {
				t.Errorf("nobody was told: %s", d.warnings.String())
			}
			d.ahead.Store(0)
			again()
			if st := d.status(); st.Clock != nil {
				t.Errorf("the clock is right again, status says %+v", st.Clock)
			}
			last := d.fill(40)
			if oldest := d.pass(50*time.Minute, 0); oldest != 1 {
				t.Errorf("the log begins with commit %d: none is an hour old", oldest)
			}
			if oldest := d.pass(9*time.Minute, first-20); oldest > jumped {
				t.Errorf("the log begins with commit %d", oldest)
			}
			d.pass(time.Hour, last-20)
		})
	}
}

// A machine that was off for years looks like a clock that is wrong. Who knows better says so.
func TestClockTrusted(t *testing.T) {
	d := openClock(t)
	last := d.fill(40)
	d.ahead.Store(int64(400 * day))
	if oldest := d.pass(0, 0); oldest != 1 {
		t.Fatalf("the log begins with commit %d", oldest)
	}
	check(t, d.TrustClock(t.Context()))
	if st := d.status(); st.Clock != nil {
		t.Errorf("trusted, status says %+v", st.Clock)
	}
	d.pass(0, last-20)
}

// Without trust a doubt ends when all is old enough by what is known to have passed.
func TestClockDoubtEnds(t *testing.T) {
	d := openClock(t)
	last := d.fill(40)
	d.ahead.Store(int64(-400 * day))
	d.pass(2*time.Hour, last-20)
	if d.status().Clock == nil {
		t.Error("the clock is not in doubt")
	}
	d.up.Add(int64(2 * day))
	check(t, d.engine.clock.tend(d.mem, "/db", time.Hour))
	if st := d.status(); st.Clock != nil {
		t.Errorf("two days later status says %+v", st.Clock)
	}
}

// A clock that is given alone is believed, but for jumps of many years.
func TestClockGivenAlone(t *testing.T) {
	var ahead atomic.Int64
	o := Options{FS: vfs.NewMem(), Now: func() time.Time { return machineStart.Add(time.Duration(ahead.Load())) }, Logger: discard}
	c := newClock(&o)
	c.open(o.FS, "db")
	c.start(0, 0)
	first := c.passed()
	ahead.Add(int64(400 * day))
	if got := micros(c.passed() - first); got != 400*day {
		t.Errorf("counted %s", got)
	}
	ahead.Add(int64(3650 * day))
	if got := micros(c.passed() - first); got != 400*day || c.status() == nil {
		t.Errorf("counted %s, %+v", got, c.status())
	}
	ahead.Add(-int64(3650 * day))
	c.passed()
	ahead.Add(int64(day))
	if got := micros(c.passed() - first); got != 401*day || c.status() != nil {
		t.Errorf("counted %s, %+v", got, c.status())
	}
}

// A file of the clock that is lost, damaged or of a newer version does not keep the database from opening, nor has anything dropped.
func TestClockFile(t *testing.T) {
	for name, text := range map[string]string{"lost": "", "damaged": "batchlog clock 1 00000000\n{}", "newer": "batchlog clock 9 00000000\n{}"} {
		d := openClock(t)
		d.fill(40)
		d.ahead.Store(int64(3650 * day))
		d.fill(1)
		check(t, d.Close())
		check(t, d.mem.Remove("/db/clock"))
		if text != "" {
			f, err := d.mem.Create("/db/clock", vfs.WriteCategoryUnspecified)
			check(t, err)
			_, err = f.Write([]byte(text))
			check(t, err)
			check(t, f.Close())
		}
		d.DB = openAt(t, &d.o)
		if oldest := d.pass(0, 0); oldest != 1 {
			t.Errorf("%s: the log begins with commit %d", name, oldest)
		}
	}
}
