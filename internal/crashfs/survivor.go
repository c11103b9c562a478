package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Survivor is CrashClone of which the same seed makes the same disk again: a MemFS asks its source of randomness in the order of a map. Of each name
// that was not synced, and of each file of which something was not, a loss of power keeps all with a probability of percent in a hundred; of files whose name ends in one of mixed
// it decides block by block. What was removed and not synced is there again, as with CrashClone.
//
// Names may have random parts, which then differ from run to run. plain is a name without them, and says whether files of that name are alike, so that
// their order says nothing.
func (fs *FS) Survivor(percent int, seed uint64, mixed []string, plain func(name string) string) (*FS, error) {
	fs.linking.Lock()
	defer fs.linking.Unlock()
	s := survivor{
		synced: fs.MemFS.CrashClone(vfs.CrashCloneCfg{}), out: New(), percent: percent, seed: seed, mixed: mixed, plain: plain,
		all: fs.MemFS.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}),
	}
	if err := s.dir("/"); err != nil {
		return nil, fmt.Errorf("what survives of a disk: %w", err)
	}
	return s.out, nil
}

// Copy is the disk as it is now, all of it synced: what is left when a process is killed.
func (fs *FS) Copy() (*FS, error) {
	fs.linking.Lock()
	defer fs.linking.Unlock()
	s := survivor{synced: fs.MemFS, all: fs.MemFS, out: New(), percent: 100, plain: func(name string) string { return name }}
	if err := s.dir("/"); err != nil {
		return nil, fmt.Errorf("copy of a disk: %w", err)
	}
	return s.out, nil
}

// A survivor is a disk in the making.
type survivor struct {
	synced, all *vfs.MemFS
	out         *FS
	percent     int
	seed        uint64
	mixed       []string
	plain       func(name string) string
}

// lucky says whether something that was not synced is kept.
func (s *survivor) lucky(what string) bool {
	h := fnv.New64a()
	_, _ = io.WriteString(h, what)
	return rand.New(rand.NewPCG(s.seed, h.Sum64())).IntN(100) < s.percent
}

// dir makes what survives of a directory.
func (s *survivor) dir(dir string) error {
	if err := s.out.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names := map[string]bool{} // whether they were synced
	for _, from := range []*vfs.MemFS{s.all, s.synced} {
		list, err := from.List(dir)
		if err != nil && from == s.all {
			return err
		}
		for _, name := range list {
			names[name] = from == s.synced
		}
	}
	alike := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		plain := s.plain(name)
		alike[plain]++
		what := fmt.Sprintf("%s %s %d", dir, plain, alike[plain])
		if !names[name] && !s.lucky(what) {
			continue
		}
		if err := s.entry(s.out.PathJoin(dir, name), what); err != nil {
			return err
		}
	}
	return syncDir(s.out, dir)
}

// entry makes what survives of a file or directory that does.
func (s *survivor) entry(path, what string) error {
	if info, err := s.all.Stat(path); err == nil && info.IsDir() {
		return s.dir(path)
	}
	now, err := read(s.all, path)
	if err != nil {
		return err
	}
	then, err := read(s.synced, path)
	if err != nil {
		then = nil // the name is there, the content never was synced
	}
	content := then
	switch {
	case string(now) == string(then):
	case slices.ContainsFunc(s.mixed, func(end string) bool { return strings.HasSuffix(path, end) }):
		content = s.blocks(then, now, what)
	case s.lucky(what + " content"):
		content = now
	}
	f, err := s.out.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(content))
	return errors.Join(err, f.Sync(), f.Close())
}

// blocks is then with some of the blocks of now.
func (s *survivor) blocks(then, now []byte, what string) []byte {
	const blockSize = 4096
	content := slices.Clone(then)
	for i := 0; i < len(now); i += blockSize {
		if !s.lucky(fmt.Sprintf("%s block %d", what, i)) {
			continue
		}
		block := now[i:min(i+blockSize, len(now))]
		if grow := i + len(block) - len(content); grow > 0 {
			content = append(content, make([]byte, grow)...)
		}
		copy(content[i:], block)
	}
	return content
}

func read(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	return content, errors.Join(err, f.Close())
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
