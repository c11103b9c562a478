package tidy

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// More lines than these have to be agreed to, in ratchet. A function counts from its first line to its last brace.
const (
	maxFileLines = 700
	maxFuncLines = 100
)

// ratchet has the files ("local/open.go") and functions ("local/open.go:DB.Close") that are longer than they should be,
// each with the lines it has now. It may only shrink: a number goes down with the code, and a line goes when it can.
var ratchet = map[string]int{}

// buildPath finds absolute paths below the home of the machines that we build on. This file is checked too, so it cannot hold one.
var buildPath = regexp.MustCompile(`(?:^|[^\w./~$)}*-]|file://)(/(?:work|farm|root)/)`)

// mark finds words that say something is left to do.
var mark = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X)\b`)

// checkBuildPaths reports files that hold a path of a machine that we build on.
func checkBuildPaths(t *tree) []string {
	var problems []string
	for _, name := range t.files {
		text, ok := t.text(name)
		if !ok {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if m := buildPath.FindStringSubmatch(line); m != nil {
				problems = append(problems, fmt.Sprintf("%s:%d: %s… is a path of a build machine: write a relative one, or take it from the environment", name, i+1, m[1]))
			}
		}
	}
	return problems
}

// checkMarks reports comments in Go files that say something is left to do.
func checkMarks(t *tree) []string {
	var problems []string
	for _, f := range t.goFiles {
		if f.generated {
			continue
		}
		for _, group := range f.syntax.Comments {
			for _, c := range group.List {
				if m := mark.FindString(c.Text); m != "" {
					problems = append(problems, t.at(c.Pos(), "%s in a comment: do it, or open an issue and name that", m))
				}
			}
		}
	}
	return problems
}

// checkLengths reports files and functions that are longer than the limits and exceptions that are not, or no longer, needed.
func checkLengths(t *tree, fileLimit, funcLimit int, exceptions map[string]int) []string {
	var problems []string
	var seen []string
	check := func(name string, lines, limit int) {
		allowed, excepted := exceptions[name]
		if excepted {
			seen = append(seen, name)
		}
		switch {
		case !excepted && lines > limit:
			problems = append(problems, fmt.Sprintf("%s has %d lines, more than %d: look for a second noun in it and move that out", name, lines, limit))
		case excepted && lines <= limit:
			problems = append(problems, fmt.Sprintf("%s has %d lines and needs no exception any more: take it out of ratchet in internal/tidy", name, lines))
		case excepted && lines > allowed:
			problems = append(problems, fmt.Sprintf("%s has grown from %d lines to %d: the ratchet only goes down", name, allowed, lines))
		case excepted && lines < allowed:
			problems = append(problems, fmt.Sprintf("%s has shrunk from %d lines to %d: write that number to ratchet in internal/tidy", name, allowed, lines))
		}
	}
	for _, f := range t.goFiles {
		if f.generated {
			continue
		}
		file := t.fset.File(f.syntax.Package)
		lines := file.LineCount()
		if file.LineStart(lines) == token.Pos(file.Base()+file.Size()) {
			lines-- // the line after the last newline
		}
		check(f.path, lines, fileLimit)
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			first, last := t.fset.Position(d.Type.Func).Line, t.fset.Position(d.Body.Rbrace).Line
			check(f.path+":"+join(receiver(d), d.Name.Name), last-first+1, funcLimit)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		if !slices.Contains(seen, name) {
			problems = append(problems, fmt.Sprintf("%s is in ratchet in internal/tidy but nowhere else: take it out", name))
		}
	}
	return problems
}

func TestBuildPaths(t *testing.T) {
	const slash = "/"
	work, root, farm := slash+"work"+slash, slash+"root"+slash, slash+"farm"+slash
	tr := memTree(t, map[string]string{
		"a.txt":         "see " + work + "main\n",
		"b.sh":          "\ncd \"" + root + "x\"\n",
		"c.md":          "[x](" + farm + "y) file://" + root + "z\n",
		"d.yml":         "a: file://" + work + "z\n",
		".ci/run":       farm + "bin\n",
		"testdata/x":    work + "\n",
		"good.txt":      "src" + work + " .." + root + " https://example.com" + root + " ${X}" + work + " $(pwd)" + work + " **" + work + " " + slash + "works" + slash + "\n",
		"binary":        "\x00 " + root + "\n",
		"sub/again.txt": "x\nHOME=" + root + "go\n",
	})
	wantProblems(t, checkBuildPaths(tr), "a.txt:1:", "b.sh:2:", "c.md:1:", "d.yml:1:", ".ci/run:1:", "testdata/x:1:", "sub/again.txt:2:")
}

func TestMarks(t *testing.T) {
	todo, fix, xxx := "TO"+"DO", "FIX"+"ME", "XX"+"X"
	tr := memTree(t, map[string]string{
		"m.go":          "package m\n\n// " + todo + ": more.\nvar _ = context." + todo + "()\n\nfunc f() {\n\t/* " + fix + " */\n\t_ = 1 // (" + xxx + ")\n}\n\n// " + todo + "S, " + xxx + "L\n",
		"gen.go":        "// Code generated by hand. DO NOT EDIT.\n\npackage m\n\n// " + todo + "\n",
		"bench/go.mod":  "module example.com/m/bench\n",
		"bench/main.go": "package main\n\n// " + todo + "\n",
	})
	wantProblems(t, checkMarks(tr), "m.go:3: "+todo, "m.go:7: "+fix, "m.go:8: "+xxx, "bench/main.go:3: "+todo)
}

func TestLengths(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\n", n) }
	tr := memTree(t, map[string]string{
		"fits.go":   "package m\n\nfunc (t *T[K]) fits() {" + lines(2) + "}" + lines(5), // 9 lines, function of 3
		"long.go":   "package m\n\n// Doc counts for the file, not for the function.\nfunc (t *T) long() {" + lines(3) + "}" + lines(4),
		"same.go":   "package m" + lines(12),
		"grown.go":  "package m" + lines(12),
		"shrunk.go": "package m" + lines(12),
		"short.go":  "package m\n\nfunc short() {}\n",
		"gen.go":    "// Code generated by hand. DO NOT EDIT.\n\npackage m" + lines(100),
	})
	got := checkLengths(tr, 9, 3, map[string]int{"same.go": 12, "grown.go": 11, "shrunk.go": 13, "short.go": 20, "short.go:short": 20, "gone.go:f": 5})
	wantProblems(t, got,
		"long.go has 10 lines, more than 9",
		"long.go:T.long has 4 lines, more than 3",
		"grown.go has grown from 11 lines to 12",
		"shrunk.go has shrunk from 13 lines to 12",
		"short.go has 3 lines and needs no exception",
		"short.go:short has 1 lines and needs no exception",
		"gone.go:f is in ratchet in internal/tidy but nowhere else",
	)
}
