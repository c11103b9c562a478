package history

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

const (
	// MaxFileBytes bounds a file whose words are indexed: 1 MiB. Larger ones are left out.
	MaxFileBytes = 1 << 20
	// MaxWordBytes bounds a word: 255 bytes. Longer ones are left out.
	MaxWordBytes = 255
	// binaryWithin is how many bytes of a file decide whether it is binary: it is if a NUL is among them, as git has it.
	binaryWithin = 8000
)

// wordLines is how many lines have each word.
type wordLines map[string]int64

// wordByte reports whether c is part of words: git's notion, which knows ASCII letters, digits and _.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// countLines counts the lines that have each word of a file's content. A file that is binary or too large has none.
func countLines(content []byte) wordLines {
	if len(content) > MaxFileBytes || bytes.IndexByte(content[:min(len(content), binaryWithin)], 0) >= 0 {
		return nil
	}
	counts := wordLines{}
	seen := map[string]int{} // number of the last line with that word
	number := 0
	for line := range bytes.Lines(content) {
		number++
		for start := 0; start < len(line); start++ {
			end := start
			for end < len(line) && wordByte(line[end]) {
				end++
			}
			if n := end - start; n > 0 && n <= MaxWordBytes && seen[string(line[start:end])] != number {
				word := string(line[start:end])
				seen[word] = number
				counts[word]++
			}
			start = end
		}
	}
	return counts
}

// format is counts as a value has them: a line "LINES WORD" for each word, sorted by word; nil if there are none.
func (counts wordLines) format() []byte {
	var text []byte
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		text = strconv.AppendInt(text, counts[word], 10)
		text = append(text, ' ')
		text = append(text, word...)
		text = append(text, '\n')
	}
	return text
}

// parseWordLines reads what format wrote.
func parseWordLines(text []byte) (wordLines, error) {
	counts := wordLines{}
	for line := range bytes.Lines(text) {
		number, word, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		n, err := strconv.ParseInt(string(number), 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q where the lines of a word should be", line)
		}
		counts[string(word)] = n
	}
	return counts, nil
}
