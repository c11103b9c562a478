package simtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing/synctest"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/local"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What programs with everything on assert about files: nothing of others is touched, nothing is left that belongs to nobody, copies are databases of their own.

// A fence stands around the files that are not the database's.
type fence struct {
	mu   sync.Mutex
	uuid string // of the database; "": not known yet
	copy string // directory of the copy that is open
	bad  []string
}

// decoys are files of others, with names that could be the database's.
var decoys = []string{
	"/data/other/keep", "/data/db.old/manifest", "/data/00000000000000000001-00000000.seg", "/warm/keep", "/warm/00000000000000000001-deadbeef.seg",
	"/warm/8a3f6a2e-0000-4000-8000-000000000000/00000000000000000001-deadbeef.seg", "/warmer/chain-00000000000000000000000000000001.ops",
}

// begin puts decoys on the disk, and watches what is removed.
func (f *fence) begin(g *together) {
	for _, name := range decoys {
		g.must("decoy", writeFile(g.disk.mem, name, []byte("of somebody else")))
	}
	g.disk.watch = f.see
}

// see is told of each change.
func (f *fence) see(op diskOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := "/" + strings.TrimPrefix(op.path, "/")
	ours := strings.HasPrefix(path, "/data/db/") || f.copy != "" && strings.HasPrefix(path, f.copy+"/") || f.uuid != "" && strings.Contains(path, f.uuid) && f.copy == ""
	if !ours && (op.kind == "remove" || op.kind == "rename" || op.kind == "write") {
		f.bad = append(f.bad, op.String())
	}
}

// check asserts that nothing of others was touched.
func (f *fence) check(g *together) {
	g.t.Helper()
	f.mu.Lock()
	bad := f.bad
	f.mu.Unlock()
	if len(bad) > 0 {
		g.t.Fatalf("step %d: files that are not the database's were changed: %v", g.step, bad)
	}
	for _, name := range decoys {
		content, err := readFile(g.disk.mem, name)
		if err != nil || string(content) != "of somebody else" {
			g.t.Fatalf("step %d: a file of somebody else is %q, %v", g.step, content, err)
		}
	}
}

// meet learns whose files the database's are.
func (f *fence) meet(g *together) {
	g.t.Helper()
	st, err := g.db.Status(g.t.Context())
	g.must("status", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uuid = st.UUID
}

// open says that a copy is open, with "" that the database itself is again.
func (f *fence) open(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.copy = dir
}

func writeFile(fs vfs.FS, name string, content []byte) error {
	dir := fs.PathDir(name)
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(content))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	for ; ; dir = fs.PathDir(dir) {
		d, err := fs.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil || dir == "/" || dir == "." || dir == "" {
			return err
		}
	}
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	return content, errors.Join(err, f.Close())
}

// files are all files in a directory and those within it, with their sizes.
func files(fs vfs.FS, dir string) (map[string]int64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for _, name := range names {
		path := strings.TrimSuffix(dir, "/") + "/" + name
		info, err := fs.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			all[path] = info.Size()
			continue
		}
		within, err := files(fs, path)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, within)
	}
	return all, nil
}

// A copied is a copy of the database's directory.
type copied struct {
	dir    string
	id     batchlog.ID // head then
	now    state
	config batchlog.LogConfig
	warm   int // segments that were in warm directories
	// everWarm says that there have been warm directories, which the table may know.
	everWarm bool
	db       *local.DB
}

// stepCopyDir copies the directory of the database, which is closed meanwhile, as somebody would with cp -r.
func (g *together) stepCopyDir() {
	g.t.Helper()
	if g.disk.isFull() || g.hurt() || len(g.copies) >= 3 {
		return
	}
	g.disk.clear()
	ctx, cancel := g.context()
	defer cancel()
	st, err := g.db.Status(ctx)
	g.must("status", err)
	c := &copied{dir: fmt.Sprint("/data/copy", len(g.copies)), id: g.model.head(), now: maps.Clone(g.model.now), config: st.Logs[0].Config, warm: st.Logs[0].Warm, everWarm: g.everWarm}
	g.log("copy of the directory: %s, at %d, %d warm", c.dir, c.id, c.warm)
	g.crew.dismiss(nil)
	g.letGo()
	g.must("close", g.closeBounded())
	all, err := files(g.disk.mem, "/data/db")
	g.must("list", err)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		content, err := readFile(g.disk.mem, path)
		g.must("copy", errors.Join(err, writeFile(g.disk.mem, c.dir+strings.TrimPrefix(path, "/data/db"), content)))
	}
	g.copies = append(g.copies, c)
	g.met["copies"]++
	g.openAgain("a copy")
}

// stepOpenCopy opens the copies, with the database closed.
func (g *together) stepOpenCopy() {
	g.t.Helper()
	if len(g.copies) == 0 || g.disk.isFull() || g.hurt() {
		return
	}
	g.disk.clear()
	g.crew.dismiss(nil)
	g.letGo()
	g.must("close", g.closeBounded())
	g.openCopies()
	g.openAgain("its copies")
}

// openCopies opens each copy, looks whether it is what it was, and whether it leaves alone what is the original's.
func (g *together) openCopies() {
	g.t.Helper()
	for _, c := range g.copies {
		before := g.outside(c.dir)
		g.fence.open(c.dir)
		g.openCopy(c)
		synctest.Wait()
		g.fence.open("")
		after := g.outside(c.dir)
		for path, size := range before {
			if now, there := after[path]; !there || now != size {
				g.t.Fatalf("step %d: opening the copy %s has changed %s: %d bytes, %t, were %d", g.step, c.dir, path, now, there, size)
			}
		}
	}
}

// outside is all files but those in a directory.
func (g *together) outside(dir string) map[string]int64 {
	g.t.Helper()
	all, err := files(g.disk.mem, "/")
	g.must("list", err)
	maps.DeleteFunc(all, func(path string, _ int64) bool { return strings.HasPrefix(path, dir+"/") })
	return all
}

// openCopy opens a copy and compares it. One that has segments in a directory that belongs to the original may be refused, by name.
func (g *together) openCopy(c *copied) {
	g.t.Helper()
	o := g.run.options()
	o.Log = c.config
	db, err := local.Open(c.dir, o)
	g.log("open %s: %v", c.dir, err)
	if err != nil {
		if len(c.config.Warm) == 0 && !c.everWarm {
			g.must("open a copy", err)
		}
		g.met["copies refused"]++
		return
	}
	c.db = db
	defer func() {
		c.db = nil
		g.must("close a copy", closeWithin(db, patience))
	}()
	ctx, cancel := bounded(patience)
	defer cancel()
	v, err := db.View(ctx, batchlog.Stale())
	g.must("view of a copy", err)
	defer v.Close()
	if v.ID() != c.id {
		g.t.Fatalf("step %d: the copy %s is at %d, want %d", g.step, c.dir, v.ID(), c.id)
	}
	var spaces []*batchlog.Space
	for _, path := range worldPaths {
		spaces = append(spaces, db.Space(path...))
	}
	g.must("copy", viewIsFold(v, spaces, c.now))
	if c.warm == 0 {
		report, err := db.Verify(ctx, local.VerifyOptions{})
		if err != nil || len(report.Problems) > 0 {
			g.t.Fatalf("step %d: verify of a copy: %v, %v", g.step, err, report.Problems)
		}
	}
	g.met["copies opened"]++
}

// known are the files that a database that is closed may have, by what is behind its directory. Those of the log are counted as well.
var knownFiles = []*regexp.Regexp{
	regexp.MustCompile(`^/(LOCK|OWNER|database|settings|clock|ballast)$`),
	regexp.MustCompile(`^/log/main/(manifest|table-\d+)$`),
	regexp.MustCompile(`^/(settings|database|clock|ballast|log/main/manifest|log/main/table-\d+)\.tmp$`), // the next one takes its place
	regexp.MustCompile(`^/log/main/\d{20}-[0-9a-f]{8}\.seg$`),
	regexp.MustCompile(`^/log/main/chain-[0-9a-f]{32}\.ops$`),
	regexp.MustCompile(`^/blobs/[0-9a-f]{2}/[0-9a-f]{64}\.blob$`),
	regexp.MustCompile(`^/store/(LOCK|\d+\.sst|\d+\.blob|\d+\.log|MANIFEST-\d+|OPTIONS-\d+|marker\..*)$`),
}

// explainFiles closes the database, after all is removed that can be, and asserts that of each file it is known what it is for.
func (g *together) explainFiles() {
	g.t.Helper()
	g.letGo()
	g.stepFlush()
	g.stepTrim()
	g.stepSweepAll()
	synctest.Wait()
	g.checkStatus()
	ctx, cancel := g.context()
	defer cancel()
	st, err := g.db.Status(ctx)
	g.must("status", err)
	g.must("close", g.closeBounded())
	chains := 0
	for id := st.Oldest; id <= st.Head; id++ {
		if c := &g.model.commits[id-1]; c.chain != nil {
			chains++
		}
	}
	all, err := files(g.disk.mem, "/data/db")
	g.must("list", err)
	counts := map[string]int{}
	for path := range all {
		name := strings.TrimPrefix(path, "/data/db")
		if strings.HasPrefix(name, "/verify-") && off("the store of a verification") {
			continue
		}
		if (g.halfFilled || off("the store of a backfill")) && strings.HasPrefix(name, "/undo/") {
			continue
		}
		if !slices.ContainsFunc(knownFiles, func(r *regexp.Regexp) bool { return r.MatchString(name) }) {
			g.t.Fatalf("step %d: nobody knows what %s is for", g.step, path)
		}
		counts[name[strings.LastIndexByte(name, '.')+1:]]++
	}
	if hot := st.Logs[0].Segments - st.Logs[0].Warm; counts["seg"] != hot {
		g.t.Fatalf("step %d: %d segments, %d files of segments: %v", g.step, hot, counts["seg"], slices.Sorted(maps.Keys(all)))
	}
	if counts["ops"] > chains {
		g.t.Fatalf("step %d: %d chains, %d files of chains", g.step, chains, counts["ops"])
	}
	g.explainWarm(&st)
	g.met["files explained"] += len(all)
	g.must("open", g.open())
}

// explainWarm is explainFiles for the warm directories.
func (g *together) explainWarm(st *batchlog.Status) {
	g.t.Helper()
	segments := 0
	for _, dir := range []string{"/warm", "/warmer"} {
		all, err := files(g.disk.mem, dir)
		g.must("list", err)
		for path := range all {
			if strings.Contains(path, st.UUID) && strings.HasSuffix(path, ".seg") {
				segments++
			}
		}
	}
	if segments != st.Logs[0].Warm {
		g.t.Fatalf("step %d: %d warm segments, %d files", g.step, st.Logs[0].Warm, segments)
	}
}
