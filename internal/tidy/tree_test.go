package tidy

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// A tree is the repository as the checks see it. Paths have slashes and are relative to the module's root, which
// as a folder is ".".
type tree struct {
	fsys   fs.FS
	module string // the module path in go.mod
	fset   *token.FileSet

	files   []string  // every file but those of git and those that .gitignore names
	goFiles []*goFile // the Go files that parse, testdata and hidden folders left out
	broken  []string  // a problem for each Go file that doesn't
}

// A goFile is one parsed Go file.
type goFile struct {
	path      string
	folder    string
	syntax    *ast.File
	test      bool // its name ends in _test.go
	generated bool // it says "Code generated … DO NOT EDIT."
	nested    bool // it belongs to a module of its own, such as bench
}

// external says whether f is a test from outside of the package in its folder.
func (f *goFile) external() bool {
	return f.test && strings.HasSuffix(f.syntax.Name.Name, "_test")
}

var moduleLine = regexp.MustCompile(`(?m)^module\s+(\S+)`)

// load reads and parses the repository at the root of fsys.
func load(fsys fs.FS) (*tree, error) {
	gomod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	m := moduleLine.FindSubmatch(gomod)
	if m == nil {
		return nil, fmt.Errorf("go.mod names no module")
	}
	t := &tree{fsys: fsys, module: string(m[1]), fset: token.NewFileSet()}
	ignored, err := ignore(fsys)
	if err != nil {
		return nil, err
	}
	var nested []string // folders with a go.mod of their own, each with a slash at its end
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != "." && (d.Name() == ".git" || ignored(name, d.IsDir())) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); name != "." && err == nil {
				nested = append(nested, name+"/")
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		t.files = append(t.files, name)
		if !strings.HasSuffix(name, ".go") || !builds(name) {
			return nil
		}
		return t.parse(name, slices.ContainsFunc(nested, func(folder string) bool { return strings.HasPrefix(name, folder) }))
	})
	return t, err
}

// parse adds the Go file name to t.
func (t *tree) parse(name string, nested bool) error {
	src, err := fs.ReadFile(t.fsys, name)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.broken = append(t.broken, err.Error())
		return nil
	}
	t.goFiles = append(t.goFiles, &goFile{
		path:      name,
		folder:    path.Dir(name),
		syntax:    syntax,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
		nested:    nested,
	})
	return nil
}

// builds says whether the go command would look at the file name at all.
func builds(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "testdata" || part == "vendor" || part[0] == '.' || part[0] == '_' {
			return false
		}
	}
	return true
}

// ignore returns a function that says whether the root's .gitignore names a file or folder. It knows the patterns that a
// short list needs: "name", "/name" for the root only, a slash at the end for folders, and the wildcards of [path.Match].
func ignore(fsys fs.FS) (func(name string, dir bool) bool, error) {
	list, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var patterns []string
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '!' || strings.Contains(strings.Trim(line, "/"), "/") {
			return nil, fmt.Errorf(".gitignore: tidy cannot read the pattern %q: write it simpler or teach it to ignore", line)
		}
		patterns = append(patterns, line)
	}
	return func(name string, dir bool) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			p, onlyDir := strings.CutSuffix(p, "/")
			if onlyDir && !dir {
				return false
			}
			if rooted, ok := strings.CutPrefix(p, "/"); ok {
				matched, _ := path.Match(rooted, name)
				return matched
			}
			matched, _ := path.Match(p, path.Base(name))
			return matched
		})
	}, nil
}

// at formats a problem found at pos.
func (t *tree) at(pos token.Pos, format string, args ...any) string {
	p := t.fset.Position(pos)
	return fmt.Sprintf("%s:%d: %s", p.Filename, p.Line, fmt.Sprintf(format, args...))
}

// text returns the contents of a file, or false if it is binary.
func (t *tree) text(name string) (string, bool) {
	b, err := fs.ReadFile(t.fsys, name)
	if err != nil || bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
		return "", false
	}
	return string(b), true
}

// exists says whether there is a file or folder of that name.
func (t *tree) exists(name string) bool {
	_, err := fs.Stat(t.fsys, name)
	return err == nil
}

// parses reports the Go files that don't parse.
func parses(t *tree) []string { return t.broken }

// memTree is a tree of the files given, in a module named m.
func memTree(t *testing.T, files map[string]string) *tree {
	t.Helper()
	fsys := fstest.MapFS{"go.mod": {Data: []byte("module example.com/m\n")}}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// wantProblems fails unless got has, in any order, just one problem for each of want, which holds it as a part.
func wantProblems(t *testing.T, got []string, want ...string) {
	t.Helper()
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(p string) bool { return strings.Contains(p, w) })
		if i < 0 {
			t.Errorf("no problem says %q", w)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, p := range left {
		t.Errorf("unexpected problem: %s", p)
	}
}

func TestLoad(t *testing.T) {
	tr := memTree(t, map[string]string{
		".gitignore":           "# what tools leave behind\n/out\ndata/\n*.prof\n",
		"a.go":                 "package a\n",
		"a_test.go":            "package a_test\n",
		"gen.go":               "// Code generated by hand. DO NOT EDIT.\n\npackage a\n",
		"bench/go.mod":         "module example.com/m/bench\n",
		"bench/sub/b.go":       "package b\n",
		"bad/bad.go":           "package\n",
		"testdata/t.go":        "package\n",
		".hidden/h.go":         "package\n",
		".git/config":          "",
		"out":                  "",
		"sub/out":              "",
		"sub/data/x":           "",
		"cpu.prof":             "",
		"sub/deep/data.go":     "package deep\n",
		"sub/deep/deep_test.c": "",
	})
	var got []string
	for _, f := range tr.goFiles {
		got = append(got, fmt.Sprintf("%s test=%t external=%t generated=%t nested=%t", f.path, f.test, f.external(), f.generated, f.nested))
	}
	want := []string{
		"a.go test=false external=false generated=false nested=false",
		"a_test.go test=true external=true generated=false nested=false",
		"bench/sub/b.go test=false external=false generated=false nested=true",
		"gen.go test=false external=false generated=true nested=false",
		"sub/deep/data.go test=false external=false generated=false nested=false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("Go files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range []string{"out", "cpu.prof", "sub/data/x", ".git/config"} {
		if slices.Contains(tr.files, name) {
			t.Errorf("%s is not left out", name)
		}
	}
	if !slices.Contains(tr.files, "sub/out") || !slices.Contains(tr.files, "testdata/t.go") {
		t.Errorf("files are missing from %q", tr.files)
	}
	wantProblems(t, parses(tr), "bad/bad.go:1:")
}
