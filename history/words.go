package history

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// wordSpaces is where [Words] keeps what it derives.
type wordSpaces struct {
	all   *batchlog.Space // holds the others
	index *batchlog.Space // [word, path] → lines
	files *batchlog.Space // path → the lines of each of its words
	links *batchlog.Space // path → nothing, of symbolic links
}

func wordsOf(repo *batchlog.Space) wordSpaces {
	s := repo.Space("words")
	return wordSpaces{all: s, index: s.Space("index"), files: s.Space("files"), links: s.Space("links")}
}

// wordWindowBytes bounds the windows of [Words]. A pair of a word and a path takes much more in the index than the word in the file.
const wordWindowBytes = 1 << 20

// Words is a task that keeps an index of the words in all files, as the newest commit that was imported has them. repo is the space of a
// repository: git/NAME. A word is as many ASCII letters, digits and _ as stand together; a file counts with the number of lines that have
// the word, which is what git grep -c -w -F -I WORD COMMIT says.
//
// Binary files (a NUL in the first 8000 bytes), symbolic links and submodules are left out, as git does. Left out are files larger than
// [MaxFileBytes], words longer than [MaxWordBytes], and blobs that the import has left out. Attributes (-diff, binary, text encodings) are not looked at.
//
//	git/NAME/words/index   [word, path] → lines
//	git/NAME/words/files   path → "LINES WORD" for each of its words, a line each
//	git/NAME/words/links   path → nothing, of symbolic links
func Words(repo *batchlog.Space) task.Task {
	at := wordsOf(repo)
	files, modes := repo.Space("files"), repo.Space("modes")
	return task.Task{
		Name:    at.all.String(),
		Source:  []*batchlog.Space{files, modes},
		Derives: []*batchlog.Space{at.all},
		Window:  task.Limit{Bytes: wordWindowBytes},
		Handle: func(_ context.Context, w *task.Window) error {
			return indexWords(w, newSource(files, at.files), newSource(modes, at.links), at.index)
		},
	}
}

// modeLink is the mode of a symbolic link.
const modeLink = "120000"

func indexWords(w *task.Window, files, modes *source, index *batchlog.Space) error {
	if err := follow(w, files, modes); err != nil {
		return err
	}
	paths := slices.Sorted(maps.Keys(files.now))
	for path := range modes.now {
		if _, ok := files.now[path]; !ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	texts, err := load(w, files.kept, paths)
	if err != nil {
		return err
	}
	links, err := load(w, modes.kept, paths)
	if err != nil {
		return err
	}
	for _, path := range paths {
		old, now := indexed{text: texts[path]}, indexed{text: texts[path]}
		_, old.link = links[path]
		now.link = old.link
		if v, ok := files.now[path]; ok {
			now.text = nil
			if !v.gone {
				now.text = countLines(v.bytes).format()
			}
			if !bytes.Equal(old.text, now.text) {
				files.keep(w, path, now.text)
			}
		}
		if v, ok := modes.now[path]; ok {
			now.link = !v.gone && string(v.bytes) == modeLink
			if old.link != now.link {
				modes.keep(w, path, linkRecord(now.link))
			}
		}
		if err := reindex(w, index, path, old, now); err != nil {
			return fmt.Errorf("%s %s: %w", files.space, batchlog.Key(path), err)
		}
	}
	return nil
}

// linkRecord is what is kept of the mode of a path.
func linkRecord(link bool) []byte {
	if link {
		return []byte{}
	}
	return nil
}

// indexed is what decides which words of a path are in the index.
type indexed struct {
	text []byte // as [wordLines.format] has it
	link bool   // then none is
}

func (x indexed) words() (wordLines, error) {
	if x.link {
		return nil, nil
	}
	return parseWordLines(x.text)
}

// reindex changes the index where the words of a path are others than before.
func reindex(w *task.Window, index *batchlog.Space, key string, before, after indexed) error {
	if bytes.Equal(before.text, after.text) && before.link == after.link {
		return nil
	}
	old, err := before.words()
	if err != nil {
		return err
	}
	now, err := after.words()
	if err != nil {
		return err
	}
	path, err := Path(batchlog.Key(key))
	if err != nil {
		return err
	}
	for _, word := range slices.Sorted(maps.Keys(old)) {
		if now[word] == 0 {
			w.Delete(index, batchlog.K(word, keyPart(path)))
		}
	}
	for _, word := range slices.Sorted(maps.Keys(now)) {
		if old[word] != now[word] {
			w.Put(index, batchlog.K(word, keyPart(path)), formatNumbers([]int64{now[word]}))
		}
	}
	return nil
}

// A Hit is a file that has a word.
type Hit struct {
	Path  string `json:"path"`
	Lines int64  `json:"lines"` // that have it
}

// Find yields the files that have a word, by path. A word is up to [MaxWordBytes] ASCII letters, digits and _; what is none is an error.
func Find(ctx context.Context, repo *batchlog.Space, word string, opts ...batchlog.ReadOption) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		if word == "" || len(word) > MaxWordBytes || strings.ContainsFunc(word, func(c rune) bool { return c > 0x7f || !wordByte(byte(c)) }) {
			yield(Hit{}, fmt.Errorf("%q is no word that is indexed: 1 to %d ASCII letters, digits and _", word, MaxWordBytes))
			return
		}
		for e, err := range wordsOf(repo).index.Scan(ctx, batchlog.Prefix(word), opts...) {
			var h Hit
			if err == nil {
				h, err = hitOf(e)
			}
			if !yield(h, err) || err != nil {
				return
			}
		}
	}
}

func hitOf(e batchlog.Entry) (Hit, error) {
	path, err := secondOf(e.Key)
	if err != nil {
		return Hit{}, err
	}
	lines, err := parseNumbers(e.Value, 1)
	if err != nil {
		return Hit{}, fmt.Errorf("%s: %w", e.Key, err)
	}
	return Hit{Path: path, Lines: lines[0]}, nil
}
