package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// A style is how text for people looks. The zero style is plain: ASCII, no colour.
type style struct {
	rich  bool // box drawing, blocks, marks
	color bool
}

// style is that of stdout.
func (a *app) style() style {
	return style{rich: a.outTerm, color: a.outTerm && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// The colours, as the terminal's codes.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (s style) paint(code, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// verdict is the mark in front of something that was checked.
func (s style) verdict(ok bool) string {
	switch {
	case ok && s.rich:
		return s.paint(green, "✓")
	case ok:
		return "ok  "
	case s.rich:
		return s.paint(red, "✗")
	}
	return "FAIL"
}

// rule is a line with a title in it.
func (s style) rule(title string) string {
	const width = 78
	if !s.rich {
		return "-- " + title + " " + strings.Repeat("-", max(0, width-4-utf8.RuneCountInString(title)))
	}
	return s.paint(dim, "── ") + s.paint(bold, title) + " " + s.paint(dim, strings.Repeat("─", max(0, width-4-utf8.RuneCountInString(title))))
}

// busiestShown is how many paths the demo shows.
const busiestShown = 8

// busiest is the n paths with the most changes.
func busiest(counts map[string]int64, n int) []pathCount {
	all := make([]pathCount, 0, len(counts))
	for path, changes := range counts {
		all = append(all, pathCount{Path: strings.ToValidUTF8(path, "\ufffd"), Changes: changes})
	}
	slices.SortFunc(all, func(x, y pathCount) int {
		return cmp.Or(-cmp.Compare(x.Changes, y.Changes), cmp.Compare(x.Path, y.Path))
	})
	return slices.Clip(all[:min(n, len(all))])
}

// A barRow is one line of a chart.
type barRow struct {
	name string
	n    int64  // as long as this is its bar
	text string // stands behind it
}

// chart draws counts as bars.
func (s style) chart(counts []pathCount) string {
	rows := make([]barRow, len(counts))
	for i, c := range counts {
		rows[i] = barRow{name: c.Path, n: c.Changes, text: countText(c.Changes)}
	}
	return s.bars(rows)
}

func (s style) bars(rows []barRow) string {
	const nameWidth, barWidth = 38, 28
	gap := "..."
	if s.rich {
		gap = "…"
	}
	names := make([]string, len(rows))
	width, most := 0, int64(1)
	for i, row := range rows {
		names[i] = clipped(printable(row.name), nameWidth, gap)
		width = max(width, utf8.RuneCountInString(names[i]))
		most = max(most, row.n)
	}
	var b strings.Builder
	for i, row := range rows {
		name := names[i]
		name += strings.Repeat(" ", width-utf8.RuneCountInString(name))
		drawn := bar(float64(row.n)/float64(most), barWidth, s.rich)
		fmt.Fprintf(&b, "  %s  %s %s\n", name, s.paint(cyan, drawn), row.text)
	}
	return b.String()
}

// text is r for people.
func (r *demoResult) text(s style) string {
	im, f, d := r.Import, r.Follower, &r.Derived
	perSecond := func(n int64) float64 { return float64(n) / max(im.Seconds, 1e-6) }
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", s.rule("batchlog demo: "+printable(im.Repo)+", commit by commit"))
	rows := [][]string{
		{"history", fmt.Sprintf("%s, each one batch, up to %s", counted(im.Commits, "commit"), im.Hash[:12])},
		{"speed", fmt.Sprintf("%s commits/s, %s/s, each durable before the next is written", rateText(perSecond(im.Commits)), bytesText(int64(perSecond(im.Bytes))))},
		{"ids", fmt.Sprintf("%s to %s, those of the task between them", countText(int64(im.First)), countText(int64(im.Last)))},
		{"ops", fmt.Sprintf("%s, %s", countText(im.Ops), bytesText(im.Bytes))},
		{"log", fmt.Sprintf("%s in %s", bytesText(r.LogBytes), counted(r.Segments, "segment"))},
		{"store", bytesText(r.StoreBytes)},
		{"follower", fmt.Sprintf("%s, %s, %s live; worst lag %s, syncs included", counted(f.Commits, "commit"), counted(f.Ops, "op"), bytesText(f.Bytes), durationText(f.Lag))},
		{"task", fmt.Sprintf("sizes of %s, live; the read after the last commit waited %s",
			directoriesText(d.Directories), durationText(d.Waited))},
	}
	if im.Left > 0 {
		rows[0][1] += fmt.Sprintf("; %s left out (--limit)", countText(im.Left))
	}
	for line := range strings.Lines(aligned(rows)) {
		name, rest := line[:10], line[10:] // the longest name has 8 letters
		fmt.Fprintf(&b, "  %s%s", s.paint(dim, name), rest)
	}
	if len(r.Busiest) > 0 {
		fmt.Fprintf(&b, "\n%s\n\n%s", s.rule("busiest paths, by changes"), s.chart(r.Busiest))
	}
	if len(d.Largest) > 0 {
		fmt.Fprintf(&b, "\n%s\n\n%s", s.rule("largest directories, of "+sizeText(d.Root)), s.bars(d.bars()))
	}
	fmt.Fprintf(&b, "\n%s\n\n", s.rule("checks"))
	r.checks(&b, s)
	fmt.Fprintf(&b, "\n%s", r.next())
	return b.String()
}

func (r *demoResult) checks(b *strings.Builder, s style) {
	c := r.Git
	what := fmt.Sprintf("git       path, mode and blob hash of %s equal git ls-tree -r", counted(c.Files+c.Submodules, "file"))
	if !c.Equal {
		what = fmt.Sprintf("git       %s from git ls-tree -r", counted(len(c.Differences), "difference"))
	}
	if c.Omitted > 0 {
		what += fmt.Sprintf("; %s left out (--max-blob)", countText(c.Omitted))
	}
	fmt.Fprintf(b, "  %s %s\n", s.verdict(c.Equal), what)
	for _, d := range c.Differences[:min(len(c.Differences), 5)] {
		fmt.Fprintf(b, "      %s %s: git %s, store %s\n", d.What, printable(d.Path), cmp.Or(d.Git, "-"), cmp.Or(d.Store, "-"))
	}
	what = fmt.Sprintf("task      bytes and files of %s equal git ls-tree -r -l", directoriesText(r.Derived.Directories))
	if len(r.Derived.Wrong) > 0 {
		what = fmt.Sprintf("task      %s from git ls-tree -r -l", counted(len(r.Derived.Wrong), "difference"))
	}
	fmt.Fprintf(b, "  %s %s\n", s.verdict(len(r.Derived.Wrong) == 0), what)
	for _, wrong := range r.Derived.Wrong[:min(len(r.Derived.Wrong), 5)] {
		fmt.Fprintf(b, "      %s\n", wrong)
	}
	what = fmt.Sprintf("verify    the log is sound, all %s in the store equal it", counted(r.Verify.Keys, "key"))
	if !r.Verify.OK {
		what = fmt.Sprintf("verify    %s", counted(len(r.Verify.Problems), "problem"))
	}
	fmt.Fprintf(b, "  %s %s\n", s.verdict(r.Verify.OK), what)
	for _, p := range r.Verify.Problems[:min(len(r.Verify.Problems), 5)] {
		fmt.Fprintf(b, "      %s\n", p.What)
	}
	followed := r.Follower.Wrong == "" && r.Follower.Commits == r.Import.Commits
	what = "follower  every commit came, once and in order"
	if !followed {
		what = "follower  " + cmp.Or(r.Follower.Wrong, fmt.Sprintf("saw %d commits of %d", r.Follower.Commits, r.Import.Commits))
	}
	fmt.Fprintf(b, "  %s %s\n", s.verdict(followed), what)
}

// next is what one may try next.
func (r *demoResult) next() string {
	if r.Dir == "" {
		return "The database was in a temporary directory and is removed; batchlog demo --keep keeps it.\n"
	}
	db := "--db " + shellWord(r.Dir)
	space := func(name string) string { return shellWord(r.Import.Space + "/" + name) }
	if strings.HasPrefix(r.Import.Space, "[") {
		space = func(string) string { return "/" }
	}
	text := "Look around:\n"
	text += fmt.Sprintf("  batchlog tail %s %s --from %d --until head %s\n", space("modes"), space("commits"), r.Import.Last, db)
	text += fmt.Sprintf("  batchlog scan %s --limit 5 %s\n", space("modes"), db)
	if r.Derived.Directories > 0 {
		text += fmt.Sprintf("  batchlog scan %s --limit 5 %s\n", space("sizes/directories"), db)
	}
	if len(r.Busiest) > 0 {
		text += fmt.Sprintf("  batchlog get %s %s %s\n", space("files"), shellWord(r.Busiest[0].Path), db)
	}
	return text
}
