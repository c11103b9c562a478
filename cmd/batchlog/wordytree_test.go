package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bytespace/batchlog/history"
)

// A wordyTree is a tree that changes at random, of files with words in them.
type wordyTree struct {
	random *rand.Rand
	files  map[string]testFile
	tip    string
}

func newWordyTree(seed uint64) *wordyTree {
	return &wordyTree{random: rand.New(rand.NewPCG(seed, 7)), files: map[string]testFile{}}
}

// wordyWords are words and what only looks like one word.
var wordyWords = []string{
	"alpha", "Alpha", "alpha_", "_alpha", "alpha-beta", "beta", "beta2", "x", "_", "0", "é", "naïve", "a\u0301b", "\xffbyte\xfe", "under_score", "don't",
	"a.b.c", "[x]", "^start", "end$", "tab\tin", "tail\r", "-e", strings.Repeat("l", history.MaxWordBytes), strings.Repeat("m", history.MaxWordBytes+1),
}

// text is some lines of words; the last one may have no line end.
func (w *wordyTree) text() string {
	var b strings.Builder
	for range w.random.IntN(12) {
		for range w.random.IntN(6) {
			b.WriteString(wordyWords[w.random.IntN(len(wordyWords))] + []string{" ", "  ", ",", ""}[w.random.IntN(4)])
		}
		b.WriteString([]string{"\n", "\r\n", "\n\n"}[w.random.IntN(3)])
	}
	return strings.TrimSuffix(b.String(), []string{"", "\n"}[w.random.IntN(2)])
}

// content is a text, now and then one that is binary, or one that barely is none.
func (w *wordyTree) content() string {
	text := w.text()
	fill := func(size int) string { return strings.Repeat("fill line\n", size/10+1)[:size] }
	switch w.random.IntN(16) {
	case 0:
		return "\x00" + text
	case 1:
		return fill(7999) + "\x00" + text // the last byte that counts
	case 2:
		return fill(8000) + "\x00" + text
	case 3:
		return fill(8100) + "late\x00nul" + text
	case 4:
		return ""
	case 5:
		if w.random.IntN(4) == 0 {
			return fill(history.MaxFileBytes-w.random.IntN(2)) + text + "\ntoolarge\n"
		}
	}
	return text
}

// commit adds a commit to the branch main of r, which makes it at its next flush.
func (w *wordyTree) commit(r *testRepo) {
	names := []string{"a", "dir/a", "dir/sub/b", "dir/sub/deep/c", "dir.x", "with space/f", "line\nend/f", "é", "not utf-8 \xff", "\x01/\x02", `quo"te\`, "zz/\xf0\x28", "-dash", "[x", "HEAD:a"}
	var changes []testFile
	drop := func(path string) {
		changes = append(changes, testFile{path: path})
		delete(w.files, path)
	}
	set := func(f testFile) {
		for p := range w.files { // a file in the place of a directory, or the other way round
			if strings.HasPrefix(p, f.path+"/") || strings.HasPrefix(f.path, p+"/") {
				delete(w.files, p)
			}
		}
		changes = append(changes, f)
		w.files[f.path] = f
	}
	for range w.random.IntN(5) {
		path := names[w.random.IntN(len(names))]
		if w.random.IntN(8) == 0 {
			path += "/below"
		}
		old := slices.Sorted(maps.Keys(w.files))
		if kind := w.random.IntN(10); kind < 5 && len(old) > 0 {
			f := w.files[old[w.random.IntN(len(old))]]
			switch kind {
			case 0: // delete
				drop(f.path)
			case 1: // rename
				drop(f.path)
				set(testFile{f.mode, path, f.content})
			case 2, 3: // another mode, the same content
				if f.mode != modeSubmodule && f.content != "" && !strings.Contains(f.content, "\x00") { // a link must have a target
					set(testFile{[]string{"100644", "100755", "120000"}[w.random.IntN(3)], f.path, f.content})
				}
			case 4: // some lines more
				if f.mode != modeSubmodule {
					set(testFile{f.mode, f.path, f.content + w.text()})
				}
			}
			continue
		}
		switch w.random.IntN(8) {
		case 0:
			set(testFile{"120000", path, "alpha beta target"})
		case 1:
			set(testFile{modeSubmodule, path, fmt.Sprintf("%0*x", r.hashLen(), r.mark+1)})
		case 2:
			set(testFile{"100755", path, w.content()})
		default:
			set(testFile{"100644", path, w.content()})
		}
	}
	var parents []string
	if w.tip != "" {
		parents = []string{w.tip}
	}
	r.clock += w.random.IntN(6 * 24 * 3600)
	if r.mark == 5 {
		r.clock = 1_706_742_000 - 61 // 2024-01-31 23:00 in UTC, February where the author is
	}
	authors := []string{"Alice", "alice", "Bøb", "not \xff utf-8", "李", "Alice B. C."}
	w.tip = r.commit("main", authors[w.random.IntN(len(authors))], "change\n", parents, changes...)
}
