package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// counted is n with its noun: "1 commit", "1,204 commits".
func counted[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	switch {
	case strings.HasSuffix(noun, "ch"), strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return countText(int64(n)) + " " + noun
}

// countText is n with commas between thousands.
func countText(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// bytesText is n bytes with three digits: "38.1 MB". Units are powers of 1000.
func bytesText(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		f /= 1000
		if f < 999.5 || unit == "TB" {
			return threeDigits(f) + " " + unit
		}
	}
	panic("batchlog: bug: the loop returns")
}

// limitText is a limit or setting: in powers of 1024 where it is a multiple of one.
func limitText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return strconv.FormatInt(n>>30, 10) + " GiB"
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return bytesText(n)
}

// rateText is a rate for people: "4,812", "38.1", "0.25".
func rateText(f float64) string {
	if f >= 100 {
		return countText(int64(math.Round(f)))
	}
	return threeDigits(f)
}

func threeDigits(f float64) string {
	switch {
	case f >= 99.95:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

// durationText is d with a sensible number of digits.
func durationText(d time.Duration) string {
	switch {
	case d >= 100*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return threeDigits(d.Seconds()) + " s"
	case d >= time.Millisecond:
		return threeDigits(float64(d)/1e6) + " ms"
	case d >= time.Microsecond:
		return threeDigits(float64(d)/1e3) + " µs"
	}
	return strconv.FormatInt(int64(d), 10) + " ns"
}

// clipped is s in at most width characters, with gap in place of its middle if need be.
func clipped(s string, width int, gap string) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	runes := []rune(s)
	left := width - utf8.RuneCountInString(gap)
	return string(runes[:left/2]) + gap + string(runes[len(runes)-(left-left/2):])
}

// wrapped breaks the paragraphs of text into lines of at most width characters. Lines that begin with two spaces stay.
func wrapped(text string, width int) string {
	var b strings.Builder
	used := 0 // of the line; 0: it is empty
	flush := func() {
		if used > 0 {
			b.WriteByte('\n')
		}
		used = 0
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, "  ") {
			flush()
			b.WriteString(line + "\n")
			continue
		}
		for word := range strings.FieldsSeq(line) {
			n := utf8.RuneCountInString(word)
			switch {
			case used > 0 && used+1+n > width:
				flush()
			case used > 0:
				b.WriteByte(' ')
				used++
			}
			b.WriteString(word)
			used += n
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// printable is s with what would disturb a terminal as question marks.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine is s as printable has it, with its lines one after the other.
func oneLine(s string) string { return printable(strings.ReplaceAll(strings.TrimSpace(s), "\n", " ")) }

// aligned writes rows of cells as columns, two spaces apart. Cells of the columns in right are set right.
func aligned(rows [][]string, right ...int) string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	isRight := map[int]bool{}
	for _, i := range right {
		isRight[i] = true
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if isRight[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			if i > 0 {
				line += "  "
			}
			line += cell
		}
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	return b.String()
}
