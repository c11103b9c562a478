package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Who feeds whom is asked once a task, whatever they come to, and the loop that is found is the first one in the order of tasks.
func TestFindLoop(t *testing.T) {
	const many = 1000
	numbers := func(from, to int) (names []string) {
		for i := from; i < to; i++ {
			names = append(names, fmt.Sprint(i))
		}
		return names
	}
	for name, c := range map[string]struct {
		feeds func(i int) []string
		want  string
	}{
		"none":           {func(int) []string { return nil }, ""},
		"all later ones": {func(i int) []string { return numbers(i+1, many) }, ""},
		"all":            {func(int) []string { return numbers(0, many) }, "0 0"},
		"all but itself": {func(i int) []string {
			return slices.DeleteFunc(numbers(0, 9), func(s string) bool { return s == fmt.Sprint(i) })
		}, "0 1 0"},
		"a chain":            {func(i int) []string { return numbers(i+1, min(i+2, many)) }, ""},
		"a ring":             {func(i int) []string { return numbers((i+1)%many, (i+1)%many+1) }, strings.Join(numbers(0, many), " ") + " 0"},
		"diamonds":           {func(i int) []string { return numbers(i+1, min(i+3, many)) }, ""},
		"a ring beside":      {func(i int) []string { return numbers(1+(i+1)%5, 2+(i+1)%5) }, ""},
		"back by the last":   {func(i int) []string { return numbers(i+1, many)[:min(2, many-1-i)] }, ""},
		"two ways, one back": {func(i int) []string { return [][]string{{"1", "2"}, {"3"}, {"3", "0"}, nil}[i] }, "0 2 0"},
		"back over one seen": {func(i int) []string { return [][]string{{"1"}, {"2", "3"}, {"1"}, {"2", "0"}}[i] }, "0 1 3 0"},
	} {
		asked := 0
		loop := findLoop("0", func(name string) []string {
			asked++
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil {
				t.Fatal(err)
			}
			return c.feeds(i)
		})
		if got := strings.Join(loop, " "); got != c.want || asked > many {
			t.Errorf("%s: %.60q, want %.60q; asked %d times", name, got, c.want, asked)
		}
	}
}
