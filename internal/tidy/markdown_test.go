package tidy

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// A page is one Markdown file, taken apart by line.
type page struct {
	links  []link
	blocks []block
	slugs  map[string]bool // what a #fragment may name
}

// A link is a target as written, and the line it stands on.
type link struct {
	line   int
	target string
}

// A block is the text of a fenced block, the line after its opening fence, and the language the fence names.
type block struct {
	line int
	lang string
	text string
}

var (
	fence     = regexp.MustCompile("^ {0,3}(?:> ?)?(```+|~~~+)\\s*([\\w+-]*)")
	codeSpan  = regexp.MustCompile("(`+)[^`].*?(`+)")
	inline    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+["'][^)]*)?\)`)
	reference = regexp.MustCompile(`^ {0,3}\[[^\]^]+\]:\s*<?([^\s>]+)`)
	attribute = regexp.MustCompile(`<(?:a|img)\b[^>]*\b(?:href|src)="([^"]+)"`)
	anchor    = regexp.MustCompile(`<a\b[^>]*\b(?:id|name)="([^"]+)"`)
	heading   = regexp.MustCompile(`^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$`)
	underline = regexp.MustCompile(`^ {0,3}(=+|-+)\s*$`)
	scheme    = regexp.MustCompile(`^(?:[a-zA-Z][a-zA-Z0-9+.-]*:|//)`)
	linked    = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// readPage takes Markdown apart. It knows what our pages use, not all that Markdown can be.
func readPage(text string) page {
	p := page{slugs: map[string]bool{}}
	var open string // the fence that the line is within
	var last string // the line before, if it may be a heading's text
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open != "":
			if m != nil && m[2] == "" && strings.HasPrefix(m[1], open) {
				open = ""
				continue
			}
			b := &p.blocks[len(p.blocks)-1]
			b.text += line + "\n"
			continue
		case m != nil:
			open, last = m[1], ""
			p.blocks = append(p.blocks, block{line: i + 2, lang: m[2]})
			continue
		}
		if h := heading.FindStringSubmatch(line); h != nil {
			p.addSlug(slug(h[1]))
		} else if underline.MatchString(line) && last != "" {
			p.addSlug(slug(last))
		}
		last = strings.TrimSpace(line)
		for _, m := range anchor.FindAllStringSubmatch(line, -1) {
			p.slugs[m[1]] = true
		}
		plain := codeSpan.ReplaceAllString(line, "")
		for _, re := range []*regexp.Regexp{inline, reference, attribute} {
			for _, m := range re.FindAllStringSubmatch(plain, -1) {
				p.links = append(p.links, link{line: i + 1, target: m[1]})
			}
		}
	}
	return p
}

// addSlug adds a heading's slug. The second heading of the same text has "-1" behind it, the third "-2".
func (p *page) addSlug(s string) {
	unique := s
	for n := 1; p.slugs[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", s, n)
	}
	p.slugs[unique] = true
}

// slug turns a heading's text into its fragment, as GitHub does: letters, digits, "-" and "_" stay, lower-case, a space is "-".
func slug(text string) string {
	text = linked.ReplaceAllString(text, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(text))
}

// pages returns the repository's Markdown files, testdata and what came with npm left out.
func (t *tree) pages() map[string]page {
	pages := map[string]page{}
	for _, name := range t.files {
		if strings.HasSuffix(name, ".md") && !strings.Contains("/"+name, "/testdata/") && !strings.Contains("/"+name, "/node_modules/") {
			if text, ok := t.text(name); ok {
				pages[name] = readPage(text)
			}
		}
	}
	return pages
}

// checkMarkdownLinks reports relative links to files that don't exist, and fragments that no heading has.
func checkMarkdownLinks(t *tree) []string {
	var problems []string
	pages := t.pages()
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		p := pages[name]
		for _, l := range p.links {
			if why := brokenLink(t, pages, name, l.target); why != "" {
				problems = append(problems, fmt.Sprintf("%s:%d: the link to %s is broken: %s", name, l.line, l.target, why))
			}
		}
	}
	return problems
}

// brokenLink says why target, on the page from, leads nowhere, or "".
func brokenLink(t *tree, pages map[string]page, from, target string) string {
	if scheme.MatchString(target) {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	to := from
	switch {
	case strings.HasPrefix(u.Path, "/"):
		to = path.Join(".", u.Path)
	case u.Path != "":
		to = path.Join(path.Dir(from), u.Path)
	}
	if to == ".." || strings.HasPrefix(to, "../") {
		return "it leads out of the repository"
	}
	if !t.exists(strings.TrimPrefix(to, "/")) {
		return "there is no such file"
	}
	if p, ok := pages[to]; ok && u.Fragment != "" && !p.slugs[u.Fragment] {
		return fmt.Sprintf("%s has no heading #%s", to, u.Fragment)
	}
	return ""
}

// checkMarkdownGo reports Go blocks in the README and below docs that do not stand, line for line, in a Go file of this module. What
// stands there is compiled, and mostly run, by its tests; so what a page shows works.
func checkMarkdownGo(t *tree) []string {
	var sources []string
	for _, f := range t.goFiles {
		if text, err := fs.ReadFile(t.fsys, f.path); err == nil && !f.nested {
			sources = append(sources, trimLines(string(text)))
		}
	}
	var problems []string
	pages := t.pages()
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if name != "README.md" && !strings.HasPrefix(name, "docs/") {
			continue
		}
		for _, b := range pages[name].blocks {
			if b.lang != "go" {
				continue
			}
			excerpt := trimLines(b.text)
			if !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, excerpt) }) {
				problems = append(problems, fmt.Sprintf("%s:%d: the Go block stands in no Go file of this module: "+
					"show a part of an example or a test, which is compiled", name, b.line))
			}
		}
	}
	return problems
}

// trimLines is text with each line trimmed, between line ends.
func trimLines(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

func TestMarkdownLinks(t *testing.T) {
	tr := memTree(t, map[string]string{
		"README.md": "# Title\n\n## A heading: of `code`, [a link](docs/a.md)!\n\n## Again\n## Again\nSetext one\n---\n" +
			"[ok](docs/a.md) [ok](docs/) [ok](/docs/a.md) [ok](docs/a.md#part-1 \"title\") [ok](#title) [ok](#again-1) [ok](#setext-one)\n" +
			"[ok](#a-heading-of-code-a-link) [ok](https://example.com/x.md) [ok](mailto:a@b) `[code](gone.md)` [![ok](a.png)](docs/b%20c.md)\n" +
			"[bad](gone.md) [bad](docs/gone.md#x)\n[bad](#nothing) and ![bad](gone.png)\n[bad](docs/a.md#part-2)\n[![ok](a.png)](gone2.md)\n" +
			"<img src=\"gone3.png\"> <a href=\"docs/a.md\">ok</a> <a id=\"here\"></a> [ok](#here)\n[bad](../up.md)\n[bad](#again-2)\n\n" +
			"[ref]: docs/a.md\n[ref2]: gone4.md\n```sh\n[code](gone.md)\n# no heading\n```\n[bad](#no-heading)\n[ok][ref]\n",
		"docs/a.md":              "# Part 1\n[ok](../README.md#title) [ok](b%20c.md) [bad](README.md)\n",
		"docs/b c.md":            "",
		"a.png":                  "\x00",
		"testdata/x.md":          "[unchecked](gone.md)",
		"node_modules/p/read.md": "[unchecked](gone.md)",
	})
	wantProblems(t, checkMarkdownLinks(tr),
		"README.md:11: the link to gone.md is broken: there is no such file",
		"README.md:11: the link to docs/gone.md#x",
		"README.md:12: the link to #nothing is broken: README.md has no heading #nothing",
		"README.md:12: the link to gone.png",
		"README.md:13: the link to docs/a.md#part-2",
		"README.md:14: the link to gone2.md",
		"README.md:15: the link to gone3.png",
		"README.md:16: the link to ../up.md",
		"README.md:17: the link to #again-2",
		"README.md:20: the link to gone4.md",
		"README.md:25: the link to #no-heading",
		"docs/a.md:2: the link to README.md",
	)
}

func TestMarkdownGo(t *testing.T) {
	good := "```go\nx := 1\nif x > 0 {\n\treturn\n}\n```\n```\nno Go at all\n```\n~~~sh\n```go\n~~~\n"
	bad := "text\n```go\nx := 2\n```\n```go\n:= 1\n```\n"
	tr := memTree(t, map[string]string{
		"a.go":           "package a\n\nfunc f() {\n\tx := 1\n\tif x > 0 {\n\t\treturn\n\t}\n}\n",
		"bench/go.mod":   "module b\n",
		"bench/b.go":     "package b\n\nfunc f() {\n\tx := 2\n}\n",
		"README.md":      good + bad,
		"docs/deep/a.md": good + bad,
		"CHANGELOG.md":   bad,
	})
	wantProblems(t, checkMarkdownGo(tr), "README.md:15: the Go block stands in no", "README.md:18: the Go block",
		"docs/deep/a.md:15: the Go block", "docs/deep/a.md:18: the Go block")
}
