package tidy

import (
	"go/ast"
	"iter"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says which of our packages each package may import; "." is the root. A row that ends in "/..." holds for the folder
// and for all within it. A package that is not here may not be. Rows may name packages that are still to come.
var arrows = map[string][]string{
	"bytewise": {},
	".":        {"bytewise", "internal/waist", "internal/wire"},

	"internal/wire":  {"bytewise"},
	"internal/waist": {"internal/wire"},

	"internal/segment": {".", "bytewise", "internal/wire"}, // the summary of a block names every space around an op: paths are bytewise
	"internal/disk":    {},
	"internal/owner":   {"internal/disk"},
	"internal/seglog":  {".", "internal/disk", "internal/segment", "internal/waist", "internal/wire"},
	"internal/store":   {".", "internal/chainsort", "internal/disk", "internal/waist", "internal/wire"}, // the net effect of a commit, for its inverse
	"internal/commit":  {".", "internal/waist", "internal/wire"},
	"internal/tier":    {".", "internal/segment"},
	"internal/opjson":  {"."},

	"internal/chainsort": {".", "internal/wire"},

	"internal/taskstate": {"."},
	"internal/roster":    {".", "internal/taskstate", "internal/waist", "internal/wire"},
	"internal/blob":      {},
	"internal/rpc":       {},

	"local":  {".", "internal/segment", "internal/seglog", "internal/store", "internal/commit", "internal/roster", "internal/tier", "internal/blob", "internal/chainsort", "internal/disk", "internal/owner", "internal/waist", "internal/wire"},
	"remote": {".", "internal/rpc"},
	"server": {".", "internal/rpc", "task", "undo"},

	"task":            {".", "internal/taskstate", "internal/wire"},
	"task/subprocess": {".", "internal/opjson", "task"},
	"history":         {".", "task"}, // tasks over what import git loads: for programs that use them, for the demo, and as examples
	"undo":            {".", "internal/waist", "internal/wire"},
	"console":         {},

	// All public ones but enginetest, which brings package testing and its flags.
	"cmd/batchlog": {".", "bytewise", "internal/opjson", "local", "remote", "server", "task", "task/subprocess", "undo", "history", "console"},
	"examples/...": {".", "bytewise", "local", "remote", "server", "task", "task/subprocess", "undo", "history", "console"},

	"enginetest":       {".", "internal/waist", "internal/wire"},
	"internal/crashfs": {},
	"internal/simtest": {".", "enginetest", "internal/crashfs", "internal/taskstate", "local", "remote", "server", "task", "undo", "internal/waist", "internal/wire"},
	"internal/tidy":    {},
}

// testArrows says what a package's tests may import beside what the package may. Every external test may import its own package.
var testArrows = map[string][]string{
	".":     {"local"}, // the examples need an engine
	"local": {"enginetest", "internal/crashfs"},
	"task":  {"local", "internal/crashfs", "internal/waist"},
	"undo":  {"local", "task", "internal/crashfs"},

	"history": {"local"},

	"task/subprocess": {"local"},
	"internal/opjson": {"local"},
	"internal/owner":  {"internal/crashfs"},
	"internal/seglog": {"bytewise", "internal/crashfs"},
	"internal/store":  {"internal/crashfs"},
	"internal/blob":   {"internal/crashfs"},
}

// pebble and what is below it are the storage engine; vfs is the file system that every file operation goes through.
const (
	pebble = "github.com/cockroachdb/pebble/v2/..."
	vfs    = "github.com/cockroachdb/pebble/v2/vfs"
)

// modules says which packages of other modules each package may import. One that is not here may import none.
var modules = map[string][]string{
	"internal/store":   {pebble},
	"internal/disk":    {vfs},
	"internal/owner":   {vfs},
	"internal/seglog":  {vfs},
	"internal/blob":    {vfs},
	"local":            {vfs, "golang.org/x/sys/unix"}, // the clock that nobody sets
	"internal/crashfs": {vfs},
	"internal/simtest": {vfs + "/...", "github.com/anishathalye/porcupine"},
	"cmd/batchlog":     {vfs, "github.com/spf13/cobra", "github.com/spf13/pflag"},
	"examples/...":     {vfs},

	"internal/chainsort": {vfs},
}

// testModules says what a package's tests may import beside that. The disks that lose writes and fail are in packages below vfs.
var testModules = map[string][]string{
	".":               {vfs},
	"internal/disk":   {vfs + "/..."},
	"internal/owner":  {vfs + "/..."},
	"internal/seglog": {vfs + "/..."},
	"local":           {vfs + "/..."},
	"task":            {vfs + "/..."},
	"undo":            {vfs},
	"history":         {vfs},
	"task/subprocess": {vfs},
	"internal/opjson": {vfs},
}

// pure lists the packages that work on bytes alone, and impure what they may therefore not import, packages within included.
var (
	pure   = []string{"bytewise", "internal/segment", "internal/wire"}
	impure = []string{"crypto/rand", "log", "math/rand", "net", "os", "syscall"}
)

// checkArrows reports imports of our packages that allow, and for tests allow and testAllow, do not name.
func checkArrows(t *tree, allow, testAllow map[string][]string) []string {
	var problems []string
	for f, imp := range t.imports() {
		to, ours := t.ours(imp)
		if !ours {
			continue
		}
		if row(allow, f.folder) == nil || to == f.folder && f.external() {
			continue
		}
		switch {
		case matches(row(allow, f.folder), to), f.test && matches(row(testAllow, f.folder), to):
		case f.test:
			problems = append(problems, t.at(imp.Pos(), "tests of %s may not import %s: "+
				"move the test to a package above both, or, if the arrow is meant, add it to testArrows in internal/tidy", f.folder, to))
		default:
			problems = append(problems, t.at(imp.Pos(), "%s may not import %s: "+
				"move the code, or let the caller hand it in; if the arrow is meant, add it to arrows in internal/tidy", f.folder, to))
		}
	}
	unknown := map[string]bool{} // packages already reported
	for _, f := range t.goFiles {
		if !f.nested && row(allow, f.folder) == nil && !unknown[f.folder] {
			unknown[f.folder] = true
			problems = append(problems, t.at(f.syntax.Package, "package %s is not in the table: "+
				"add it to arrows in internal/tidy with what it may import", f.folder))
		}
	}
	return problems
}

// checkModules reports imports from outside the module and the standard library that the tables do not name.
func checkModules(t *tree, allow, testAllow map[string][]string) []string {
	var problems []string
	for f, imp := range t.imports() {
		to := importPath(imp)
		first, _, _ := strings.Cut(to, "/")
		if _, ours := t.ours(imp); ours || to != "C" && !strings.Contains(first, ".") {
			continue
		}
		if matches(row(allow, f.folder), to) || f.test && matches(row(testAllow, f.folder), to) {
			continue
		}
		table := "modules"
		if f.test {
			table = "testModules"
		}
		problems = append(problems, t.at(imp.Pos(), "%s may not import %s: "+
			"do without, or, if the dependency is worth it, add it to %s in internal/tidy", f.folder, to, table))
	}
	return problems
}

// checkPure reports imports of forbidden packages, or of packages within them, in the pure folders, tests left out.
func checkPure(t *tree, folders, forbidden []string) []string {
	var problems []string
	for f, imp := range t.imports() {
		to := importPath(imp)
		if !f.test && slices.Contains(folders, f.folder) &&
			slices.ContainsFunc(forbidden, func(no string) bool { return matches([]string{no + "/..."}, to) }) {
			problems = append(problems, t.at(imp.Pos(), "%s is pure and may not import %s: have the caller hand in what it needs", f.folder, to))
		}
	}
	return problems
}

// imports yields each import of our module's Go files, nested modules left out.
func (t *tree) imports() iter.Seq2[*goFile, *ast.ImportSpec] {
	return func(yield func(*goFile, *ast.ImportSpec) bool) {
		for _, f := range t.goFiles {
			for _, imp := range f.syntax.Imports {
				if !f.nested && !yield(f, imp) {
					return
				}
			}
		}
	}
}

// ours returns the folder of the imported package, and whether it is in our module.
func (t *tree) ours(imp *ast.ImportSpec) (folder string, ok bool) {
	return t.folderOf(importPath(imp))
}

// folderOf returns the folder of the package with an import path, and whether that is in our module.
func (t *tree) folderOf(importPath string) (folder string, ok bool) {
	if importPath == t.module {
		return ".", true
	}
	return strings.CutPrefix(importPath, t.module+"/")
}

// importPath returns the path that an import names.
func importPath(imp *ast.ImportSpec) string {
	p, err := strconv.Unquote(imp.Path.Value)
	if err != nil {
		panic("parsed import with a bad path: " + imp.Path.Value) // the parser has looked at it
	}
	return p
}

// row returns the row of table that holds for folder: its own, or the nearest that ends in "/...". It is nil if there is none
// and never otherwise.
func row(table map[string][]string, folder string) []string {
	allowed, ok := table[folder]
	for up := folder; !ok && up != "."; up = path.Dir(up) {
		allowed, ok = table[up+"/..."]
	}
	if ok && allowed == nil {
		return []string{}
	}
	return allowed
}

// matches says whether one of patterns is name or, ending in "/...", is name or above it.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		above, wild := strings.CutSuffix(p, "/...")
		return p == name || wild && (above == name || strings.HasPrefix(name, above+"/"))
	})
}

func TestArrows(t *testing.T) {
	tr := memTree(t, map[string]string{
		"m.go":               "package m\nimport _ \"example.com/m/low\"\n",
		"example_test.go":    "package m_test\nimport _ \"example.com/m\"\nimport _ \"example.com/m/high\"\n",
		"low/low.go":         "package low\nimport _ \"fmt\"\nimport _ \"example.com/m\"\n",
		"high/high.go":       "package high\nimport _ \"example.com/m\"\n",
		"high/high_test.go":  "package high_test\nimport _ \"example.com/m/high\"\nimport _ \"example.com/m/suite\"\nimport _ \"example.com/m/low\"\n",
		"new/new.go":         "package new\nimport _ \"example.com/m\"\n",
		"new/more.go":        "package new\n",
		"examples/a/main.go": "package main\nimport _ \"example.com/m/high\"\nimport _ \"example.com/m/suite\"\n",
		"bench/go.mod":       "module example.com/m/bench\n",
		"bench/main.go":      "package main\nimport _ \"example.com/m/suite\"\n",
	})
	got := checkArrows(tr,
		map[string][]string{".": {"low"}, "low": nil, "high": {"."}, "examples/...": {"high"}, "later": {"high"}},
		map[string][]string{"high": {"suite"}})
	wantProblems(t, got,
		"example_test.go:3: tests of . may not import high",
		"low/low.go:3: low may not import .",
		"high/high_test.go:4: tests of high may not import low",
		"examples/a/main.go:3: examples/a may not import suite",
		"package new is not in the table",
	)
}

func TestModules(t *testing.T) {
	tr := memTree(t, map[string]string{
		"m.go":             "package m\nimport _ \"net/http\"\nimport _ \"github.com/x/y\"\n",
		"low/low.go":       "package low\nimport _ \"github.com/x/y/fs\"\nimport _ \"github.com/x/y\"\nimport \"C\"\n",
		"low/low_test.go":  "package low\nimport _ \"github.com/x/y/fs/bad\"\nimport _ \"github.com/x/yy\"\n",
		"high/high.go":     "package high\nimport _ \"github.com/x/y\"\nimport _ \"github.com/x/y/fs/bad\"\n",
		"bench/go.mod":     "module example.com/m/bench\n",
		"bench/main.go":    "package main\nimport _ \"github.com/z/z\"\n",
		"high/deep/fit.go": "package deep\nimport _ \"example.com/mm\"\n",
	})
	got := checkModules(tr,
		map[string][]string{"low": {"github.com/x/y/fs"}, "high": {"github.com/x/y/..."}},
		map[string][]string{"low": {"github.com/x/y/fs/..."}})
	wantProblems(t, got,
		"m.go:3: . may not import github.com/x/y:",
		"low/low.go:3: low may not import github.com/x/y:",
		"low/low.go:4: low may not import C:",
		"low/low_test.go:3: low may not import github.com/x/yy:",
		"high/deep/fit.go:2: high/deep may not import example.com/mm:",
	)
}

func TestPure(t *testing.T) {
	tr := memTree(t, map[string]string{
		"low/low.go":      "package low\nimport _ \"io\"\nimport _ \"os\"\nimport _ \"os/exec\"\nimport _ \"osx\"\n",
		"low/low_test.go": "package low\nimport _ \"os\"\n",
		"high/high.go":    "package high\nimport _ \"os\"\n",
	})
	wantProblems(t, checkPure(tr, []string{"low"}, []string{"os"}), "low/low.go:3:", "low/low.go:4:")
}

// TestTables keeps rows from standing where nothing reads them: an import that the row of the package allows its tests anyway,
// and packages that arrows does not know.
func TestTables(t *testing.T) {
	for name, table := range map[string]map[string][]string{"arrows": arrows, "testArrows": testArrows} {
		for from, row := range table {
			for _, to := range append(slices.Clone(row), from) {
				if _, ok := arrows[to]; !ok {
					t.Errorf("%s: row %s: arrows has no package %s", name, from, to)
				}
			}
		}
	}
	for _, folder := range slices.Concat(slices.Collect(maps.Keys(modules)), slices.Collect(maps.Keys(testModules)), pure) {
		if _, ok := arrows[folder]; !ok {
			t.Errorf("arrows has no package %s", folder)
		}
	}
	for from, row := range testArrows {
		for _, to := range row {
			if matches(arrows[from], to) {
				t.Errorf("testArrows: %s may import %s anyway", from, to)
			}
		}
	}
}
