package enginetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
)

var settingTests = []test{
	{"Status", testStatus},
	{"StatusFollowers", testStatusFollowers},
	{"Configure", testConfigure},
	{"PlanChangesNothing", testPlanChangesNothing},
	{"PlanSaysWhatGoes", testPlanSaysWhatGoes},
	{"BadSettings", testBadSettings},
	{"OverReopen", testConfigureOverReopen},
}

// needStatus skips t if the engine does not tell how it is.
func needStatus(t *testing.T, db *batchlog.DB) {
	t.Helper()
	if status(t, db).UUID == "" {
		t.Skip("the engine tells only its head")
	}
}

// needConfigure skips t if the engine has no settings.
func needConfigure(t *testing.T, db *batchlog.DB) {
	t.Helper()
	if _, err := db.PlanConfigure(within(t), batchlog.LogConfig{}); errors.Is(err, batchlog.ErrUnsupported) {
		t.Skip("the engine has no settings")
	}
}

// Status says how far log and store are, in the order that always holds.
func testStatus(t *testing.T, open Open) {
	db := plain(t, open)
	needStatus(t, db)
	st := status(t, db)
	if st.Head != 0 || st.Applied != 0 || st.Oldest != 1 || st.Epoch != 1 || st.State != "open" || st.Reason != "" {
		t.Errorf("a new database is %+v", st)
	}
	for n := range 30 {
		id := put(t, db.Space("s"), batchlog.K(n), strings.Repeat("v", 100))
		st := status(t, db)
		if st.Head != id || st.Applied > st.Head || st.Flushed > st.Applied || st.Oldest != 1 || st.State != "open" {
			t.Fatalf("after commit %d it is %+v", id, st)
		}
		if st.BacklogBytes < 0 || st.BacklogLimit <= 0 || st.BacklogBytes > st.BacklogLimit {
			t.Fatalf("backlog %d of %d", st.BacklogBytes, st.BacklogLimit)
		}
	}
	wantValue(t, db.Space("s"), batchlog.K(0), strings.Repeat("v", 100))
	eventually(t, "applied to be head", func() bool { return status(t, db).Applied == 30 })
	st = status(t, db)
	if len(st.Logs) != 1 || st.Logs[0].Name != batchlog.DefaultLog || st.Logs[0].First != 1 || st.Logs[0].Last != 30 || st.Logs[0].Segments < 1 ||
		st.Logs[0].Bytes < 3000 || st.Logs[0].Oldest.IsZero() || len(st.Logs[0].Damaged) != 0 {
		t.Errorf("logs are %+v", st.Logs)
	}
}

// Status counts who follows.
func testStatusFollowers(t *testing.T, open Open) {
	db := plain(t, open)
	needStatus(t, db)
	put(t, db.Space("s"), nil, "v")
	for _, err := range db.Tail(within(t), batchlog.TailOptions{}) {
		check(t, err)
		if got := status(t, db).Followers; got != 1 {
			t.Errorf("%d followers, want 1", got)
		}
		break
	}
	if got := status(t, db).Followers; got != 0 {
		t.Errorf("%d followers when the tail is over, want 0", got)
	}
}

// Settings take effect, can be changed while writes go on, and show in the status.
func testConfigure(t *testing.T, open Open) {
	db := open(t, Options{Log: batchlog.LogConfig{SegmentBytes: 2 * batchlog.MinSegmentBytes}}).DB
	needConfigure(t, db)
	for round, c := range []batchlog.LogConfig{
		{SegmentBytes: batchlog.MinSegmentBytes}, {SegmentBytes: 2 * batchlog.MinSegmentBytes, HotTTL: time.Hour}, {Name: batchlog.DefaultLog, HotTTL: time.Minute}, {},
	} {
		check(t, db.Configure(within(t), c))
		got := status(t, db).Logs[0].Config
		if got.HotTTL != c.HotTTL || got.SegmentBytes != c.SegmentBytes && (c.SegmentBytes != 0 || got.SegmentBytes != batchlog.DefaultSegmentBytes) {
			t.Errorf("settings are %+v, want %+v", got, c)
		}
		for n := range 50 {
			put(t, db.Space("s"), batchlog.K(round, n), strings.Repeat("v", 1000))
		}
	}
	if got := status(t, db).Logs[0].Segments; got < 3 {
		t.Errorf("%d segments after 100 KB in segments of 32 KiB", got)
	}
	check(t, db.Configure(within(t), batchlog.LogConfig{}, db.Root()))
	commits, err := until(t, db, batchlog.TailOptions{Until: 200})
	if err != nil || len(commits) != 200 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
}

// A plan says what would change, and changes nothing; what is as it was is no change.
func testPlanChangesNothing(t *testing.T, open Open) {
	db := plain(t, open)
	needConfigure(t, db)
	before := status(t, db).Logs[0].Config
	same, err := db.PlanConfigure(within(t), batchlog.LogConfig{})
	check(t, err)
	if len(same.Changes) != 0 {
		t.Errorf("no change is %q", same.Changes)
	}
	p, err := db.PlanConfigure(within(t), batchlog.LogConfig{HotTTL: time.Hour, SegmentBytes: 1 << 20})
	check(t, err)
	if len(p.Changes) != 2 {
		t.Errorf("changes are %q, want two", p.Changes)
	}
	after := status(t, db).Logs[0].Config
	if after.HotTTL != before.HotTTL || after.SegmentBytes != before.SegmentBytes {
		t.Errorf("settings were %+v, are %+v", before, after)
	}
}

// A plan with a shorter time says how much of the log is past it.
func testPlanSaysWhatGoes(t *testing.T, open Open) {
	tr := openTrimmable(t, open, 150)
	tr.now(trimTTL / 2)
	c := batchlog.LogConfig{SegmentBytes: batchlog.MinSegmentBytes, HotTTL: trimTTL / 4}
	eventually(t, "segments to be sealed", func() bool {
		p, err := tr.DB.PlanConfigure(within(t), c)
		check(t, err)
		if p.Segments > 0 && (p.Last == 0 || p.Last > 150 || p.Bytes < int64(p.Last)*500) {
			t.Fatalf("plan is %+v", p)
		}
		return p.Segments >= 2
	})
}

// Settings that make no sense, or are not there yet, are refused and change nothing.
func testBadSettings(t *testing.T, open Open) {
	db := plain(t, open)
	needConfigure(t, db)
	for name, c := range map[string]batchlog.LogConfig{
		"negative TTL": {HotTTL: -1}, "tiny segments": {SegmentBytes: batchlog.MinSegmentBytes - 1},
		"huge segments": {SegmentBytes: batchlog.MaxSegmentBytes + 1}, "negative segments": {SegmentBytes: -1},
	} {
		if err := db.Configure(within(t), c); err == nil {
			t.Errorf("%s is taken", name)
		}
		if _, err := db.PlanConfigure(within(t), c); err == nil {
			t.Errorf("a plan with %s is made", name)
		}
	}
	other := plain(t, open)
	wantErr(t, "space of another database", db.Configure(within(t), batchlog.LogConfig{}, other.Root()), batchlog.ErrPermission)
	if got := status(t, db).Logs[0].Config; got.HotTTL != 0 {
		t.Errorf("settings are %+v", got)
	}
}

// Settings are as durable as commits.
func testConfigureOverReopen(t *testing.T, open Open) {
	sub := open(t, Options{})
	needConfigure(t, sub.DB)
	if sub.Reopen == nil {
		t.Skip("the engine keeps nothing")
	}
	check(t, sub.DB.Configure(within(t), batchlog.LogConfig{HotTTL: 123 * time.Minute, SegmentBytes: 5 * batchlog.MinSegmentBytes}))
	uuid := status(t, sub.DB).UUID
	st := status(t, sub.Reopen(t))
	if c := st.Logs[0].Config; c.HotTTL != 123*time.Minute || c.SegmentBytes != 5*batchlog.MinSegmentBytes {
		t.Errorf("settings are %+v", c)
	}
	if st.UUID != uuid || st.Epoch != 1 {
		t.Errorf("database %s became %s, epoch %d", uuid, st.UUID, st.Epoch)
	}
}
