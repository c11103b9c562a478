package tidy

import (
	"cmp"
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// A pkg is the Go files of one folder that name the same package. Tests from outside are a pkg of their own.
type pkg struct {
	folder string
	name   string
	files  []*goFile
}

// packages returns our module's packages, nested modules and generated files left out, sorted by folder and name.
func (t *tree) packages() []*pkg {
	type key struct{ folder, name string }
	byKey := map[key]*pkg{}
	for _, f := range t.goFiles {
		if f.nested || f.generated {
			continue
		}
		k := key{f.folder, f.syntax.Name.Name}
		if byKey[k] == nil {
			byKey[k] = &pkg{folder: k.folder, name: k.name}
		}
		byKey[k].files = append(byKey[k].files, f)
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *pkg) int {
		return cmp.Or(cmp.Compare(a.folder, b.folder), cmp.Compare(a.name, b.name))
	})
}

// code returns the files of p that are not tests; if all are, those that are not external.
func (p *pkg) code() []*goFile {
	code := slices.DeleteFunc(slices.Clone(p.files), func(f *goFile) bool { return f.test })
	if len(code) == 0 {
		code = slices.DeleteFunc(slices.Clone(p.files), (*goFile).external)
	}
	return code
}

// checkPackageDocs reports packages whose comment is missing, stands in several files, or begins otherwise than it should.
func checkPackageDocs(t *tree) []string {
	var problems []string
	for _, p := range t.packages() {
		var docs []*goFile
		for _, f := range p.code() {
			if f.syntax.Doc != nil {
				docs = append(docs, f)
			}
		}
		switch {
		case len(p.code()) == 0: // external tests alone
		case len(docs) == 0:
			problems = append(problems, fmt.Sprintf("%s: package %s has no package comment", p.folder, p.name))
		case len(docs) > 1:
			for _, f := range docs[1:] {
				problems = append(problems, t.at(f.syntax.Package, "package %s has its package comment in %s: keep one, "+
					"and an empty line between other comments and the package clause", p.name, docs[0].path))
			}
		case !opensDoc(docs[0].syntax.Doc.Text(), p):
			problems = append(problems, t.at(docs[0].syntax.Doc.Pos(), "the package comment begins with %q, not with %s",
				firstWords(docs[0].syntax.Doc.Text(), 2), openings(p)))
		}
	}
	return problems
}

// opensDoc says whether the comment of package p begins the way such comments do.
func opensDoc(doc string, p *pkg) bool {
	if p.name != "main" {
		return firstWords(doc, 2) == "Package "+p.name
	}
	name := path.Base(p.folder)
	return firstWords(doc, 2) == "Command "+name || strings.EqualFold(firstWords(doc, 1), name)
}

// openings says in words what opensDoc accepts.
func openings(p *pkg) string {
	if p.name != "main" {
		return fmt.Sprintf("%q", "Package "+p.name)
	}
	name := path.Base(p.folder)
	return fmt.Sprintf("%q or the name %q", "Command "+name, name)
}

// firstWords returns the first n words of s.
func firstWords(s string, n int) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(n, len(words))], " ")
}

// plainMethods need no comment: package errors says what they do, and there is no more to say.
var plainMethods = []string{"Error", "Is", "Unwrap"}

// checkNameDocs reports exported names at the top level, and exported methods of exported types, without a doc comment.
// A group of constants or variables may have one for all, a constant or variable its own above it or behind it.
func checkNameDocs(t *tree) []string {
	var problems []string
	report := func(name *ast.Ident, of string) {
		if name.IsExported() {
			problems = append(problems, t.at(name.Pos(), "%s%s has no doc comment", of, name.Name))
		}
	}
	for _, p := range t.packages() {
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, decl := range f.syntax.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					recv := receiver(d)
					switch {
					case d.Doc != nil:
					case d.Recv == nil:
						report(d.Name, "")
					case ast.IsExported(recv) && !slices.Contains(plainMethods, d.Name.Name):
						report(d.Name, recv+".")
					}
				case *ast.GenDecl:
					for _, name := range undocumented(d) {
						report(name, "")
					}
				}
			}
		}
	}
	return problems
}

// undocumented returns the names that d declares without a comment.
func undocumented(d *ast.GenDecl) []*ast.Ident {
	var names []*ast.Ident
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			if s.Doc == nil && s.Comment == nil && d.Doc == nil {
				names = append(names, s.Names...)
			}
		}
	}
	return names
}

// receiver returns the name of the type that d is a method of, or "".
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	name, _ := typeName(d.Recv.List[0].Type)
	return name
}

// typeName returns the name that a type expression comes down to without pointers and type arguments, and the package it is
// qualified with, if it is.
func typeName(x ast.Expr) (name, qualifier string) {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name, ""
	case *ast.StarExpr:
		return typeName(x.X)
	case *ast.ParenExpr:
		return typeName(x.X)
	case *ast.IndexExpr:
		return typeName(x.X)
	case *ast.IndexListExpr:
		return typeName(x.X)
	case *ast.SelectorExpr:
		if q, ok := x.X.(*ast.Ident); ok {
			return x.Sel.Name, q.Name
		}
	}
	return "", ""
}

func TestPackageDocs(t *testing.T) {
	tr := memTree(t, map[string]string{
		"m.go":                 "// Package m is good.\npackage m\n",
		"more.go":              "// A comment of the file.\n\npackage m\n",
		"m_test.go":            "// Comments in tests don't count.\npackage m\n",
		"x_test.go":            "package m_test\n",
		"none/none.go":         "package none\n",
		"twice/a.go":           "// Package twice is here.\npackage twice\n",
		"twice/b.go":           "// Package twice is here too.\npackage twice\n",
		"other/other.go":       "// This is package other.\npackage other\n",
		"cmd/tool/main.go":     "// Command tool does it.\npackage main\n",
		"cmd/tool2/main.go":    "// Tool2 does it.\npackage main\n",
		"cmd/tool3/main.go":    "// Package main does it.\npackage main\n",
		"gen/gen.go":           "// Code generated by hand. DO NOT EDIT.\n\npackage gen\n",
		"tests/a_test.go":      "// Package tests has only tests.\npackage tests\n",
		"undoc/a_test.go":      "package undoc\n",
		"outside/a_test.go":    "package outside_test\n",
		"bench/go.mod":         "module example.com/m/bench\n",
		"bench/main.go":        "package main\n",
		"sub/testdata/main.go": "package main\n",
	})
	wantProblems(t, checkPackageDocs(tr),
		"none: package none has no package comment",
		"twice/b.go:2: package twice has its package comment in twice/a.go",
		`other/other.go:1: the package comment begins with "This is", not with "Package other"`,
		`cmd/tool3/main.go:1: the package comment begins with "Package main", not with "Command tool3" or the name "tool3"`,
		"undoc: package undoc has no package comment",
	)
}

func TestNameDocs(t *testing.T) {
	tr := memTree(t, map[string]string{
		"m.go": `package m

type A struct{}

// B is said.
type B[T any] struct{}

// A comment of the group says nothing of a type in it.
type (
	// C is said.
	C int
	D int
	e int
)

func F() {}

// G is said.
func G() {}

func (A) M() {}

func (b *B[T]) N() {}

func (e) O() {}

func (A) p() {}

func (A) Error() string { return "" }

// Limits.
const (
	L1 = 1
	L2 = 2
)

const (
	L3 = 3 // three
	L4 = 4
	l5 = 5
)

var V, w int
`,
		"m_test.go": "package m\n\nfunc TestX() {}\n",
		"gen.go":    "// Code generated by hand. DO NOT EDIT.\n\npackage m\n\nfunc Gen() {}\n",
	})
	wantProblems(t, checkNameDocs(tr),
		"m.go:3: A has", "m.go:12: D has", "m.go:16: F has", "m.go:21: A.M has", "m.go:23: B.N has", "m.go:39: L4 has", "m.go:43: V has")
}
