package tidy

import (
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A symbol is a name at the top level of a package.
type symbol struct {
	test    bool            // declared in a test
	members map[string]bool // methods and fields, their own
	embeds  []embed         // types whose members are its members too
}

// An embed is a type that another one embeds, is an alias of, or is defined by.
type embed struct {
	pkg  *pkg // nil if it isn't ours: nothing is known of it then
	name string
}

// An index finds the names of our packages.
type index struct {
	t        *tree
	packages []*pkg
	symbols  map[*pkg]map[string]*symbol
}

// newIndex reads the declarations of t, generated ones included: what is written by hand may refer to them.
func newIndex(t *tree) *index {
	x := &index{t: t, packages: t.packages(), symbols: map[*pkg]map[string]*symbol{}}
	for _, f := range t.goFiles {
		if f.generated && !f.nested {
			p := x.find(f.folder, f.syntax.Name.Name)
			if p == nil {
				p = &pkg{folder: f.folder, name: f.syntax.Name.Name}
				x.packages = append(x.packages, p)
			}
			p.files = append(p.files, f)
		}
	}
	for _, p := range x.packages {
		x.symbols[p] = map[string]*symbol{}
		for _, f := range p.files {
			for _, decl := range f.syntax.Decls {
				x.declare(p, f, decl)
			}
		}
	}
	return x
}

// find returns the package of that name in folder, or nil.
func (x *index) find(folder, name string) *pkg {
	for _, p := range x.packages {
		if p.folder == folder && p.name == name {
			return p
		}
	}
	return nil
}

// in returns the package in folder that others import, or nil.
func (x *index) in(folder string) *pkg {
	for _, p := range x.packages {
		if p.folder == folder && len(p.code()) > 0 {
			return p
		}
	}
	return nil
}

// symbol returns the symbol of that name in p, made if need be.
func (x *index) symbol(p *pkg, f *goFile, name string) *symbol {
	s := x.symbols[p][name]
	if s == nil {
		s = &symbol{test: f.test, members: map[string]bool{}}
		x.symbols[p][name] = s
	}
	return s
}

// declare adds the names of decl.
func (x *index) declare(p *pkg, f *goFile, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if recv := receiver(d); recv != "" {
			x.symbol(p, f, recv).members[d.Name.Name] = true
		} else {
			x.symbol(p, f, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					x.symbol(p, f, name.Name)
				}
			case *ast.TypeSpec:
				sym := x.symbol(p, f, s.Name.Name)
				sym.test = f.test // a method may have come first, from a test
				x.addMembers(sym, p, f, s.Type)
			}
		}
	}
}

// addMembers adds the fields and methods that a type's expression gives it.
func (x *index) addMembers(sym *symbol, p *pkg, f *goFile, expr ast.Expr) {
	var list *ast.FieldList
	switch e := expr.(type) {
	case *ast.StructType:
		list = e.Fields
	case *ast.InterfaceType:
		list = e.Methods
	default:
		sym.embeds = append(sym.embeds, x.embed(p, f, expr))
		return
	}
	for _, field := range list.List {
		for _, name := range field.Names {
			sym.members[name.Name] = true
		}
		if len(field.Names) == 0 {
			e := x.embed(p, f, field.Type)
			sym.members[e.name] = true
			sym.embeds = append(sym.embeds, e)
		}
	}
}

// embed resolves a type expression that stands in f.
func (x *index) embed(p *pkg, f *goFile, expr ast.Expr) embed {
	name, qualifier := typeName(expr)
	if qualifier == "" {
		return embed{pkg: p, name: name}
	}
	folder, ours := x.t.folderOf(imported(f, qualifier))
	if !ours {
		return embed{name: name}
	}
	return embed{pkg: x.in(folder), name: name}
}

// imported returns the path of the package that f imports under name, or "".
func imported(f *goFile, name string) string {
	for _, imp := range f.syntax.Imports {
		p := importPath(imp)
		if imp.Name != nil && imp.Name.Name == name || imp.Name == nil && guessName(p) == name {
			return p
		}
	}
	return ""
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// guessName returns the name that a package most likely has by its import path.
func guessName(importPath string) string {
	name := path.Base(importPath)
	if majorVersion.MatchString(name) {
		name = path.Base(path.Dir(importPath))
	}
	return name
}

// has says whether p declares name or, with recv, whether its type recv has the member name. Only tests may refer to what
// is declared in tests.
func (x *index) has(p *pkg, recv, name string, test bool) bool {
	if recv == "" {
		s := x.symbols[p][name]
		return s != nil && (test || !s.test)
	}
	s := x.symbols[p][recv]
	return s != nil && (test || !s.test) && x.hasMember(s, name, 0)
}

// hasMember says whether s has the member name, looking through what it embeds.
func (x *index) hasMember(s *symbol, name string, depth int) bool {
	if s.members[name] {
		return true
	}
	return depth < 8 && slices.ContainsFunc(s.embeds, func(e embed) bool {
		if e.pkg == nil {
			return true // another module's: not ours to check
		}
		inner := x.symbols[e.pkg][e.name]
		return inner != nil && x.hasMember(inner, name, depth+1)
	})
}

// checkDocLinks reports doc links in comments that lead to nothing. A name alone is looked for in the comment's package, a
// qualified one in what the package imports under that name or, where an arrow the other way forbids the import, in our
// package of that name. What is not ours is taken on trust, if it is imported or in the standard library.
func checkDocLinks(t *tree) []string {
	x := newIndex(t)
	var problems []string
	for _, p := range x.packages {
		for _, f := range p.files {
			if f.generated {
				continue
			}
			for _, group := range f.syntax.Comments {
				for _, link := range docLinks(group.Text()) {
					why := x.broken(p, f, link)
					if why == "" {
						continue
					}
					problems = append(problems, t.at(posOf(group, linkText(link)), "the doc link [%s] leads nowhere: %s", linkText(link), why))
				}
			}
		}
	}
	return problems
}

// synopsis is what a command's comment may have in brackets: a placeholder for an optional argument.
var synopsis = regexp.MustCompile(`^[A-Z]+$`)

// broken says why link, in a comment of f in p, leads nowhere, or "".
func (x *index) broken(p *pkg, f *goFile, link *comment.DocLink) string {
	if link.ImportPath == "" {
		target := p
		if f.external() && x.in(p.folder) != nil && !x.has(p, link.Recv, link.Name, true) {
			target = x.in(p.folder)
		}
		if x.has(target, link.Recv, link.Name, f.test) || p.name == "main" && synopsis.MatchString(linkText(link)) {
			return ""
		}
		return fmt.Sprintf("package %s has no %s", p.name, join(link.Recv, link.Name))
	}
	path := link.ImportPath
	for _, other := range append([]*goFile{f}, p.files...) {
		if imp := imported(other, link.ImportPath); imp != "" {
			path = imp
			break
		}
	}
	if folder, ours := x.t.folderOf(path); ours {
		target := x.in(folder)
		switch {
		case target == nil:
			return fmt.Sprintf("there is no package in %s", folder)
		case link.Name == "" || x.has(target, link.Recv, link.Name, false):
			return ""
		}
		return fmt.Sprintf("package %s has no %s", target.name, join(link.Recv, link.Name))
	}
	if path != link.ImportPath || strings.Contains(path, "/") || link.Name == "" {
		return "" // imported from elsewhere, written out, or just a word in brackets
	}
	named := slices.DeleteFunc(slices.Clone(x.packages), func(q *pkg) bool { return q.name != path })
	if slices.ContainsFunc(named, func(q *pkg) bool { return x.has(q, link.Recv, link.Name, false) }) {
		return ""
	}
	if _, std := comment.DefaultLookupPackage(path); std && len(named) == 0 {
		return ""
	}
	return fmt.Sprintf("package %s has no %s or is neither ours, imported, nor in the standard library", path, join(link.Recv, link.Name))
}

// docLinks returns the doc links in a comment, whether they lead anywhere or not.
func docLinks(text string) []*comment.DocLink {
	p := comment.Parser{
		LookupPackage: func(name string) (string, bool) {
			return name, token.IsIdentifier(name) || strings.Contains(name, "/")
		},
		LookupSym: func(_, name string) bool { return name != "" }, // it is in "[]int"
	}
	var links []*comment.DocLink
	walkText := func(texts []comment.Text) {
		for _, t := range texts {
			if link, ok := t.(*comment.DocLink); ok {
				links = append(links, link)
			}
		}
	}
	var walk func(blocks []comment.Block)
	walk = func(blocks []comment.Block) {
		for _, b := range blocks {
			switch b := b.(type) {
			case *comment.Paragraph:
				walkText(b.Text)
			case *comment.Heading:
				walkText(b.Text)
			case *comment.List:
				for _, item := range b.Items {
					walk(item.Content)
				}
			}
		}
	}
	walk(p.Parse(text).Content)
	return links
}

// linkText returns what stands between the brackets.
func linkText(link *comment.DocLink) string {
	var b strings.Builder
	for _, t := range link.Text {
		switch t := t.(type) {
		case comment.Plain:
			b.WriteString(string(t))
		case comment.Italic:
			b.WriteString(string(t))
		}
	}
	return b.String()
}

// join returns "recv.name", or name alone.
func join(recv, name string) string {
	if recv == "" {
		return name
	}
	return recv + "." + name
}

// posOf returns where the comment in group that holds "[text]" begins, or the group.
func posOf(group *ast.CommentGroup, text string) token.Pos {
	for _, c := range group.List {
		if i := strings.Index(c.Text, "["+text+"]"); i >= 0 {
			return c.Pos() + token.Pos(i)
		}
	}
	return group.Pos()
}

func TestDocLinks(t *testing.T) {
	tr := memTree(t, map[string]string{
		"m.go": `// Package m links to [DB], [DB.Write], [*DB], [low.Key], [local.Open], [io.Reader], [vfs.FS], [Limit] and [Helper].
//
// Nothing: [Gone], [DB.Gone], [low.Gone], [nowhere.Name], [local.OnlyInTest].
//
//	code [Gone]
//
// A list:
//
//   - item [Lost]
//
// No links: [x, y), [word], [low, high], a[Gone], [two words], [Text].
//
// [Text]: https://example.com
package m

import (
	"example.com/m/low"
	v "github.com/x/y/v2/vfs"
	"github.com/x/vfs/v3"
)

// DB is [v.FS], [v.Anything] and [DB.Field], [DB.Low], [DB.Inner], [DB.Deep]; not [DB.Name].
type DB struct {
	Field int // of [DB.Write] and [Field]
	low.Low
	*inner
}

type inner struct{ Inner int }

// Write is in [example.com/m/low.Low.Deep], not in [example.com/m/low.Low.Shallow] or [example.com/m/lower.Low].
func (db *DB) Write() {
	// Inside, [Write] is checked as well.
}

// Limit is one.
const Limit = 1
`,
		"m_test.go":         "package m\n\n// Helper is there for tests: [Helper], [Limit], [Helped].\nfunc Helper() {}\n",
		"example_test.go":   "package m_test\n\n// Outside, [DB], [Own] and [Foreign].\nfunc Own() {}\n",
		"low/low.go":        "package low\n\n// Low is in [m.DB.Write] and [m.DB.Read].\ntype Low struct{ Deep int }\n\n// Key [Low.Deep].\nfunc Key() {}\n",
		"local/local.go":    "package local\n\nimport \"example.com/m\"\n\n// DB has [DB.Write], [DB.Field], not [DB.Read].\ntype DB struct{ *m.DB }\n\n// Open [Alias.Write] [Elsewhere.Any].\nfunc Open() {}\n\n// Alias is one.\ntype Alias = DB\n\n// Elsewhere is another.\ntype Elsewhere io.Reader\n",
		"local/gen.go":      "// Code generated by hand. DO NOT EDIT.\n\npackage local\n\n// Gen is [Unchecked].\nfunc Gen() {}\n",
		"local/use.go":      "package local\n\n// Uses [Gen].\n",
		"local/l_test.go":   "package local\n\nfunc OnlyInTest() {}\n",
		"cmd/tool/main.go":  "// Command tool takes [FILE], is [Main].\npackage main\n",
		"bench/go.mod":      "module example.com/m/bench\n",
		"bench/main.go":     "// [Unchecked].\npackage main\n",
		"testdata/other.go": "// [Unchecked].\npackage main\n",
	})
	wantProblems(t, checkDocLinks(tr),
		"m.go:1: the doc link [Helper]",
		"m.go:3: the doc link [Gone] leads nowhere: package m has no Gone",
		"m.go:3: the doc link [DB.Gone] leads nowhere: package m has no DB.Gone",
		"m.go:3: the doc link [low.Gone] leads nowhere: package low has no Gone",
		"m.go:3: the doc link [nowhere.Name]",
		"m.go:3: the doc link [local.OnlyInTest]",
		"m.go:9: the doc link [Lost]",
		"m.go:22: the doc link [DB.Name]",
		"m.go:24: the doc link [Field]",
		"m.go:31: the doc link [example.com/m/low.Low.Shallow]",
		"m.go:31: the doc link [example.com/m/lower.Low]",
		"m.go:33: the doc link [Write]",
		"m_test.go:3: the doc link [Helped]",
		"example_test.go:3: the doc link [Foreign]",
		"low/low.go:3: the doc link [m.DB.Read]",
		"local/local.go:5: the doc link [DB.Read]",
		"cmd/tool/main.go:1: the doc link [Main]",
	)
}
