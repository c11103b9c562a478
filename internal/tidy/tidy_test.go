package tidy

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRepository(t *testing.T) {
	tr, err := load(os.DirFS(moduleRoot(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		check func(*tree) []string
	}{
		{"Parses", parses},
		{"Arrows", func(tr *tree) []string { return checkArrows(tr, arrows, testArrows) }},
		{"Modules", func(tr *tree) []string { return checkModules(tr, modules, testModules) }},
		{"Pure", func(tr *tree) []string { return checkPure(tr, pure, impure) }},
		{"PackageDocs", checkPackageDocs},
		{"NameDocs", checkNameDocs},
		{"DocLinks", checkDocLinks},
		{"MarkdownLinks", checkMarkdownLinks},
		{"MarkdownGo", checkMarkdownGo},
		{"BuildPaths", checkBuildPaths},
		{"Marks", checkMarks},
		{"Lengths", func(tr *tree) []string { return checkLengths(tr, maxFileLines, maxFuncLines, ratchet) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, problem := range c.check(tr) {
				t.Error(problem)
			}
		})
	}
}

// moduleRoot returns the folder at or above this one that holds go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod here or above")
		}
		dir = parent
	}
}
