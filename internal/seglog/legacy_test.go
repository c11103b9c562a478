package seglog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/internal/disk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const manifestPath = dir + "/" + manifestName

// legacyOf is the table t as version 1 of the manifest held it.
func legacyOf(t *table) legacyManifest {
	m := legacyManifest{Trimmed: t.trimmed}
	for s := range t.segs.all() {
		ms := legacySegment{
			Name: s.name(), Dir: s.dir, Warm: s.warm, First: s.first, Last: s.last, End: s.end, Size: s.size, Oldest: s.oldest, Newest: s.newest, Begun: s.begun, Ended: s.ended,
		}
		for name, state := range legacyStates {
			if state == s.state {
				ms.State = name
			}
		}
		switch s.state {
		case sealed:
			ms.Hash = hex.EncodeToString(s.hash[:])
		case active:
			if t.mark.first == s.first {
				ms.End = t.mark.end
			}
		}
		for _, c := range s.chains {
			ms.Chains = append(ms.Chains, legacyChain{File: hex.EncodeToString(c.file[:]), ID: c.id, Size: c.size})
		}
		m.Segments = append(m.Segments, ms)
	}
	return m
}

// makeLegacy has the log, which is closed, be one that a program has written which knew version 1 only.
func (w *world) makeLegacy(change func(m *legacyManifest)) {
	w.t.Helper()
	l := &Log{opts: w.opts}
	m, err := l.readManifest()
	if err != nil {
		w.t.Fatal(err)
	}
	t, _, err := l.readTable(m)
	if err != nil {
		w.t.Fatal(err)
	}
	legacy := legacyOf(t)
	if change != nil {
		change(&legacy)
	}
	body, err := json.MarshalIndent(legacy, "", " ")
	if err == nil {
		_, err = disk.ReplaceFile(w.opts.FS, manifestPath, disk.AppendDocument(nil, manifestName, 1, body))
	}
	if err := errors.Join(err, w.opts.FS.Remove(filepath.Join(dir, m.Table)), disk.SyncDir(w.opts.FS, dir)); err != nil {
		w.t.Fatal(err)
	}
}

// A table of version 1 comes back as it was, and is one of today from then on.
func TestLegacy(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(5, 3000)
	w.sealed()
	if _, err := w.log.Trim(w.segs()[1].last); err != nil {
		t.Fatal(err)
	}
	w.swept()
	w.write(put(10, "a"))
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	want := w.segs()
	for i := range 3 { // the second time it is converted already
		if i == 0 {
			w.makeLegacy(nil)
		}
		w.open()
		got := w.segs()
		for i := range want {
			a, b := *want[i], *got[i]
			a.live, b.live = nil, nil
			if !reflect.DeepEqual(a, b) || len(got) != len(want) {
				t.Fatalf("%+v, want %+v", b, a)
			}
		}
		if m, err := w.log.readManifest(); err != nil || m.legacy != nil {
			t.Fatalf("not converted: %v", err)
		}
		w.wantRead(batchlog.Oldest(), w.all[w.log.Oldest()-1:])
		w.verify()
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if trimmed := w.log.table.Load().trimmed; trimmed != w.all[want[0].first-2].Time {
		t.Errorf("trimmed up to time %d", trimmed)
	}
}

// The manifest of version 1, as it was written, is read for ever.
func TestLegacyGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/manifest-v1")
	if err != nil {
		t.Fatal(err)
	}
	version, body, err := disk.ParseDocument(text, manifestName)
	if err != nil || version != 1 {
		t.Fatal(version, err)
	}
	m, err := parseLegacy(body, "m")
	if err != nil {
		t.Fatal(err)
	}
	tab, err := m.table("m")
	if err != nil {
		t.Fatal(err)
	}
	want := []seg{
		{first: 5, last: 9, tag: segTag{1, 2, 3, 4}, state: sealed, warm: true, dir: "/warm/uuid", end: 1 << 40, size: 1<<40 + 1, oldest: 1, newest: 2, hash: [32]byte{0x0f, 0x1e}, chains: []segChain{{[16]byte{0xaa, 15: 0xbb}, 7, 5000}}},
		{first: 10, last: 10, tag: segTag{1, 2, 3, 5}, state: full, dir: "a", end: 5000, size: 6000, oldest: 3, newest: 3},
		{first: 11, tag: segTag{1, 2, 3, 6}, state: active, size: 1 << 20},
	}
	if got := segsOf(tab); !reflect.DeepEqual(got, want) || tab.trimmed != 12345 || tab.mark != (mark{first: 11, end: 4096}) {
		t.Errorf("%+v\nwant %+v, trimmed %d, mark %v", got, want, tab.trimmed, tab.mark)
	}
	if c := m.Config; c == nil || c.Name != "main" || c.HotTTL != time.Hour || c.SegmentBytes != 1<<20 {
		t.Errorf("config %+v", c)
	}
}

// A table that makes no sense is refused although its sum holds; a newer version is refused by name.
func TestLegacyRefused(t *testing.T) {
	w := begin(t, options(vfs.NewMem(), batchlog.MinSegmentBytes))
	w.fill(3, 3000)
	w.sealed()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	w.makeLegacy(nil)
	replace := func(version int, change func(body string) string) {
		t.Helper()
		rewrite(t, w.opts.FS, manifestPath, func(b []byte) []byte {
			_, body, _ := bytes.Cut(b, []byte("\n"))
			changed := change(string(body))
			if version == 1 && changed == string(body) {
				t.Error("nothing was changed")
			}
			return disk.AppendDocument(nil, manifestName, uint32(version), []byte(changed))
		})
	}
	var good []byte
	rewrite(t, w.opts.FS, manifestPath, func(b []byte) []byte {
		good = b
		return b
	})
	swap := func(old, changed string) func(string) string {
		return func(body string) string { return strings.Replace(body, old, changed, 1) }
	}
	for name, change := range map[string]func(string) string{
		"no JSON":             func(string) string { return "{" },
		"no segments":         func(string) string { return "{}" },
		"a hole":              swap(`"last": `, `"last": 1`),
		"two active":          swap(`"state": "sealed"`, `"state": "active"`),
		"none active":         swap(`"state": "active"`, `"state": "sealed"`),
		"an unknown state":    swap(`"state": "sealed"`, `"state": "warm"`),
		"an unknown last one": swap(`"state": "active"`, `"state": "warm"`),
		"another name":        swap(`"name": "0`, `"name": "1`),
		"no name":             swap(`"name": "0`, `"name": "x`),
		"a hash of no hex":    swap(`"hash": "`, `"hash": "x`),
		"a hash too long":     swap(`"hash": "`, `"hash": "0000`),
		"a hash too short": func(body string) string {
			return body[:strings.Index(body, `"hash": "`)+9] + body[strings.Index(body, `"hash": "`)+11:]
		},
	} {
		replace(1, change)
		if _, err := Open(w.opts, 0); !errors.Is(err, batchlog.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		rewrite(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	}
	replace(0, func(body string) string { return body })
	if _, err := Open(w.opts, 0); !errors.Is(err, batchlog.ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
	rewrite(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	replace(manifestVersion+1, func(body string) string { return body })
	_, err := Open(w.opts, 0)
	var newer *batchlog.VersionError
	if !errors.As(err, &newer) || newer.Version != manifestVersion+1 || newer.Known != manifestVersion || !strings.HasSuffix(newer.What, manifestName) {
		t.Errorf("newer version: %v", err)
	}
	rewrite(t, w.opts.FS, manifestPath, func([]byte) []byte { return good })
	w.open()
	w.wantRead(batchlog.First(), w.all)
}

// Whatever bytes the manifest has, opening says what is wrong with them or does not mind.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"segments":[{"name":"1.seg","state":"active","first":1,"end":4096,"size":16384}]}`))
	f.Add([]byte(`{"config":{"Name":"main"},"segments":[{"state":"sealed","first":1,"last":1,"hash":"00"},{"state":"active","first":2}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := disk.AppendDocument(nil, manifestName, 1, body)
		if err := disk.WriteFile(fs, manifestPath, text); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(options(fs, 0), 0); err == nil {
			l.Close()
			t.Errorf("opened without a segment: %s", body)
		}
	})
}
