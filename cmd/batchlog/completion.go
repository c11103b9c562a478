package main

import (
	"github.com/spf13/cobra"
)

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that teaches a shell to complete batchlog's commands and flags",
		Long: `To have it in every new shell (Bash needs the package bash-completion, Zsh a compinit in ~/.zshrc):

  echo 'source <(batchlog completion bash)' >> ~/.bashrc
  batchlog completion zsh > "${fpath[1]}/_batchlog"
  batchlog completion fish > ~/.config/fish/completions/batchlog.fish`,
		Example: `  batchlog completion bash > batchlog.bash
  batchlog completion zsh > _batchlog
  batchlog completion fish > batchlog.fish`,
		Args:      takes(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.out, true)
			}
			return of(cmd, usagef("%q is no shell that it knows: bash, zsh or fish", args[0]))
		},
	}
}
