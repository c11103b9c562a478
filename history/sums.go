package history

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bytespace/batchlog"
	"github.com/bytespace/batchlog/task"
)

// sums are numbers under the keys of a space that a window adds to. A key whose numbers are all zero is not there.
type sums struct {
	space *batchlog.Space
	width int // numbers of each key
	added map[string][]int64
}

func newSums(space *batchlog.Space, width int) *sums {
	return &sums{space: space, width: width, added: map[string][]int64{}}
}

// add adds to the numbers of k.
func (s *sums) add(k batchlog.Key, numbers ...int64) {
	sum := s.added[string(k)]
	if sum == nil {
		sum = make([]int64, s.width)
		s.added[string(k)] = sum
	}
	for i, n := range numbers {
		sum[i] += n
	}
}

// write reads each key that something was added to once, and writes what it comes to.
func (s *sums) write(w *task.Window) error {
	maps.DeleteFunc(s.added, func(_ string, sum []int64) bool { return zero(sum) })
	keys := slices.Sorted(maps.Keys(s.added))
	before, err := load(w, s.space, keys)
	if err != nil {
		return err
	}
	for _, key := range keys {
		sum := s.added[key]
		if text, ok := before[key]; ok {
			old, err := parseNumbers(text, s.width)
			if err != nil {
				return fmt.Errorf("%s %s: %w", s.space, batchlog.Key(key), err)
			}
			for i := range sum {
				sum[i] += old[i]
			}
		}
		if i := slices.IndexFunc(sum, func(n int64) bool { return n < 0 }); i >= 0 {
			return fmt.Errorf("%s %s would be %d: it was changed by others than its task", s.space, batchlog.Key(key), sum[i])
		}
		if zero(sum) {
			w.Delete(s.space, batchlog.Key(key))
		} else {
			w.Put(s.space, batchlog.Key(key), formatNumbers(sum))
		}
	}
	return nil
}

func zero(numbers []int64) bool {
	return !slices.ContainsFunc(numbers, func(n int64) bool { return n != 0 })
}

// formatNumbers is numbers as a value has them: in decimal, with a space between.
func formatNumbers(numbers []int64) []byte {
	var text []byte
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ' ')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return text
}

// parseNumbers reads what formatNumbers wrote.
func parseNumbers(text []byte, width int) ([]int64, error) {
	words := strings.Split(string(text), " ")
	if len(words) != width {
		return nil, fmt.Errorf("%q where %d numbers should be", text, width)
	}
	numbers := make([]int64, width)
	for i, word := range words {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return numbers, nil
}
