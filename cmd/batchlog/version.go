package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// A versionJSON is what version --json prints.
type versionJSON struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // the git commit that it was built from
	Modified bool   `json:"modified,omitempty"` // … with changes on top
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of batchlog",
		Long:    `It prints the version, the git commit that it was built from where that is known, and what it was built with.`,
		Example: `  batchlog version`,
		Args:    takes(0, 0),
		RunE: a.runs(func(context.Context, []string) error {
			v := versionOf(debug.ReadBuildInfo())
			if a.json {
				return a.printJSON(v)
			}
			_, err := a.out.WriteString(v.text())
			return err
		}),
	}
}

func versionOf(info *debug.BuildInfo, ok bool) versionJSON {
	v := versionJSON{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func (v versionJSON) text() string {
	built := ""
	if v.Revision != "" {
		built = " built from " + v.Revision
		if v.Modified {
			built += " with changes"
		}
		built += ","
	}
	return fmt.Sprintf("batchlog %s,%s %s %s\n", v.Version, built, v.Go, v.Platform)
}
